"""URLs without credentials."""

from __future__ import annotations

import pytest

from xcli.core.public_urls import public_url, without_secrets


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://h/a.jpg", "https://h/a.jpg"),
        ("https://anna:pa55@h:8443/a.jpg", "https://h:8443/a.jpg"),
        ("HTTPS://a@b@h/a@b.jpg", "HTTPS://h/a@b.jpg"),
        ("https://anna:pa55@h", "https://h"),
        ("https://h?sig=1", "https://h"),
        ("https://h/a.jpg?X-Amz-Credential=A&X-Amz-Signature=B&w=20", "https://h/a.jpg?w=20"),
        ("https://h/a.jpg?w=20&x%2damz%2dsignature=B#top", "https://h/a.jpg?w=20#top"),
        ("https://h/a.jpg?GoogleAccessId=a&Expires=9&Signature=B", "https://h/a.jpg"),
        ("https://h/a.jpg?sv=2022&se=2027&sr=b&sp=r&sig=B", "https://h/a.jpg"),
        ("https://h/a.jpg?se=2027&expires=never", "https://h/a.jpg?se=2027&expires=never"),
        ("https://h/a.jpg?", "https://h/a.jpg"),
        ("https://h/a?size=[1]*", "https://h/a?size=[1]*"),
        ("s3://b/a@b?sig=1", "s3://b/a@b?sig=1"),
        ("photos/https://a@b", "photos/https://a@b"),
    ],
)
def test_a_url_without_what_only_its_server_may_know(url: str, public: str) -> None:
    assert public_url(url) == public
    assert public_url(public) == public


def test_text_with_urls_in_it() -> None:
    text = "403, url='https://u:p@h/a.jpg?Signature=B&w=2' and http://h/b?token=C, s3://b/c"
    assert without_secrets(text) == "403, url='https://h/a.jpg?w=2' and http://h/b s3://b/c"
