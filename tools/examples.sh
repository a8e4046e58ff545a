# Examples for the man pages and docs/cli.md: under each comment, the command that does what it says.

# A table of all images below a directory; the format is that of the extension:
xception classify ~/photos -o labels.csv
# Names from another program, separated by NUL so that any name will do:
find . -name '*.jpg' -newer last.csv -print0 | xception classify - --null -o new.csv
# A model of your own, with its class names:
xception classify ~/photos --model birds.keras --labels birds.txt -o birds.parquet
# A bucket, by all machines of a Ray cluster, into a directory of parts in another bucket:
xception classify s3://bucket/photos/ -o s3://results/labels/ --runner ray --ray-address auto
# The rows of a table of features, by the head of a model of your own, without pixels:
xception classify --from-features features.parquet --model RUN -o labels.csv
# Accuracies and a table by class, for the validation split where there is one:
xception evaluate clothes --model clothes-model
# The same with tables and pictures, the confusion matrix and the worst mistakes among them:
xception evaluate clothes --model clothes-model -o report
# Images and their classes from a table, in columns of these names:
xception evaluate images.csv --path-column file --label-column kind --model birds.keras --labels birds.txt
# Top-1 and top-5 accuracy of the ImageNet weights, for a directory of folders named by wnid:
xception evaluate ILSVRC2012_val --json | jq '{top1, top5}'
# Stop a pipeline when the model has become worse:
xception evaluate clothes --model clothes-model --split test --assert-top1 0.9
# A vector of 2048 numbers for each image:
xception features ~/photos -o features.parquet
# A matrix for numpy, ready for cosine similarity, at half the size:
xception features ~/photos --normalize --dtype float16 -o features.npy
# The output of an inner layer, averaged over the image:
xception features ~/photos --layer block13_sepconv2_act -o inner.parquet
# Maps of 10 by 10 by 2048 numbers, not averaged:
xception features ~/photos --pooling none -o maps.parquet
# The second of four parts of a bucket, each on a machine of its own:
xception features s3://bucket/photos/ --shard 2/4 -o part-2.parquet
# A classifier of your own from a folder for each class:
xception finetune ~/clothes -o RUN
# The head alone, in a minute or two:
xception finetune ~/clothes -o RUN --unfreeze none
# More views of few images, and more of the network trained on them (slower):
xception finetune ~/clothes -o RUN --views 6 --unfreeze block12
# New classes for the network of an earlier run, from a table with the columns file and kind:
xception finetune birds.csv --path-column file --label-column kind -o BIRDS --model RUN
# A head on stored features, in seconds, from a file with the columns path and label:
xception finetune --from-features features.parquet --truth truth.csv -o RUN
# The network, where its weights are, and what this machine has:
xception info
# What is in a directory, before a long run:
xception info ~/photos
# Names for --layer of features:
xception info --layers
# Whether a file of weights fits, in a script:
xception info --weights my.weights.h5 --classes 12 --json | jq -r .weights.state
# Four parts to the table that one run would have written, if no image is missing:
xception merge part-1.parquet part-2.parquet part-3.parquet part-4.parquet --source /data/images -o all.parquet
# The parts of a run over two directories, only some of whose files were taken:
xception merge part-*.csv --source a --source b --include '*.png' -o all.csv
# Parts of a run over a list of images; all that is missing goes to a file:
xception merge part-*.parquet --manifest images.csv --report missing.jsonl -o all.parquet
# One behind the other, as CSV, where the sources are not at hand:
xception merge part-*.parquet -o all.csv
# A page to look through a table in a browser:
xception report labels.csv -o report.html --open
# The images have been moved since; more of each class, in a larger page:
xception report labels.parquet -o report.html --images /archive/photos --top-images 30 --max-size 60
# What changes from the table of an older model to that of a newer one, with the images:
xception report older.csv --compare newer.parquet -o changes.html
# Of an evaluation or a fine-tuned run: the confusion matrix, whose cells open their images:
xception report clothes-model -o report.html
# A table against the true classes of its images, a file with the columns path and label:
xception report labels.csv --truth truth.csv -o report.html --overwrite
# Whether a table is whole and sound, and has a row for every image:
xception verify labels.csv ~/photos
# The same of the second of four parts:
xception verify part-2.parquet /data/images --shard 2/4
# Of the table alone, in a script:
xception verify features.parquet --json | jq -r '.findings[].what'
# Every image without a row, and whatever else is wrong, as lines of JSON in a file:
xception verify labels.csv ~/photos --report wrong.jsonl
# See what would go where, and change nothing:
xception sort labels.csv sorted --dry-run
# Copies in a folder for each class, and those with a best score below 0.5 in sorted/_unsure:
xception sort labels.csv sorted --min-score 0.5
# Move the files, those that could not be read into sorted/_errors, with names that tell class and score:
xception sort labels.csv sorted --mode move --errors --rename '{label_1}-{score_1:.2f}-{stem}'
# Take it back:
xception sort --undo sorted/_sort-0123456789abcdef.jsonl
# What a newer model says of the same images:
xception compare older.parquet newer.parquet
# Each image that differs, in a table:
xception compare older.parquet newer.parquet -o differences.csv
# Stop a pipeline when more than one image in a hundred gets another class:
xception compare older.csv newer.parquet --assert-agreement 0.99
# Features of a lower precision: how far they are from the others.
xception compare features.parquet features16.npy --json | jq .cosine
# Images that are copies of each other, and which of each group to keep:
xception duplicates features.parquet -o copies.csv
# What can go, for another program:
xception duplicates features.parquet | grep ',false$' | cut -d, -f2
# Test images that are among the training images, too:
xception duplicates test.parquet --between train.parquet -o leaks.csv
# Surer ones only, of photographs that have been moved since:
xception duplicates 2025.parquet 2026.parquet --threshold 0.7 --images /archive/photos
# The images most like one that is not in the table; it is embedded as the table was:
xception search features.parquet query.jpg
# The five most like each of two rows of the table, without a network:
xception search features.parquet photos/0001.jpg photos/0002.jpg --top 5 -o similar.csv
# Altered copies of one image, in two tables:
xception search 2025.parquet logo.png --also 2026.parquet --whiten --top 20
# By vectors of your own, for another program:
xception search features.npy vectors.npy | cut -d, -f1,3
# What is wrong with a data set; the features are kept, so that the next audit needs no network:
xception audit clothes --features clothes.parquet -o findings.csv
# A page of the findings, each beside the image it is compared with:
xception audit clothes --features clothes.parquet --html findings.html
# Stop a pipeline when images for validation are also among those for training, or lie under two labels:
xception audit clothes --features clothes.parquet --assert-clean copy-across-splits,copy-across-classes
# Of a table of features and a file with the columns path and label, without a look at the images:
xception audit features.parquet --truth labels.csv --no-pixels --json
# A model of your own for ONNX Runtime, compared with this program on photographs of yours before it appears:
xception export --model RUN --format onnx -o RUN-onnx --images ~/photos
# Half the size, for a telephone:
xception export --model RUN --format litert --precision float16 -o RUN-litert
# The ImageNet network as an embedding, for OpenVINO:
xception export --no-include-top --format openvino -o features-openvino
# For TensorFlow Serving, and the comparison as JSON, for a script:
xception export --model RUN --format savedmodel -o RUN-savedmodel --json | jq .comparison
