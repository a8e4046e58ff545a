# Completion of xception for fish. Written by tools/generate.py: edits are lost.

# Whether $argv[1] is the command on the line, empty where there is none yet, and none of the options that follow
# it there is given already. They come after a = if they take a value, which may be what is being completed.
function __xception_at
    set -l tokens (commandline -opc)
    set -e tokens[1]
    set -l command ''
    set -l seen
    set -l value_follows no
    while set -q tokens[1]
        set -l token $tokens[1]
        set -e tokens[1]
        set -a seen $token
        if test $value_follows = yes
            set value_follows no
        else if string match -q -- '-*' $token
            contains -- $token --log-file
            and set value_follows yes
        else
            set command $token
            set seen $tokens
            break
        end
    end

    test "$command" = "$argv[1]"
    or return 1
    set -l value_ahead no
    for option in $argv[2..]
        if test $option = '='
            set value_ahead yes
            continue
        end
        # A short option may stand behind flags, and its value behind it.
        set -l given "^$option"'(=|$)'
        set -l last "^$option"'$'
        if not string match -q -- '--*' $option
            set given '^-[0hqv]*'(string sub -s 2 -- $option)
            set last "$given"'$'
        end
        if test $value_ahead = yes
            and string match -qr -- $last $seen[-1]
            set -e seen[-1]
        end
        string match -qr -- $given $seen
        and return 1
    end
    return 0
end

complete -c xception -f
complete -c xception -n '__xception_at ""' -a 'classify' -d 'Best classes of each image, with probabilities'
complete -c xception -n '__xception_at ""' -a 'evaluate' -d 'How good a model is, on images whose classes are known'
complete -c xception -n '__xception_at ""' -a 'features' -d 'An embedding of each image'
complete -c xception -n '__xception_at ""' -a 'info' -d 'The model, its weights, this machine; a check of sources'
complete -c xception -n '__xception_at ""' -a 'merge' -d 'The outputs of --shard runs joined to one, and proven whole'
complete -c xception -n '__xception_at ""' -a 'verify' -d 'Whether an output is whole and sound, and every source has its row'

complete -c xception -n '__xception_at ""' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at "" -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at "" --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at "" = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at "" --version' -l version -d 'Show the version and exit'
complete -c xception -n '__xception_at "" -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at classify' -F
complete -c xception -n '__xception_at classify -0 --null' -s 0 -l null -d 'With -: names end in NUL (find -print0)'
complete -c xception -n '__xception_at classify = --manifest' -l manifest -r -F -d 'A CSV or Parquet table of paths; its other columns are carried into the output'
complete -c xception -n '__xception_at classify = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at classify --escaped-paths' -l escaped-paths -d 'Paths in the manifest are escaped as in our output (\\xNN, \\\\)'
complete -c xception -n '__xception_at classify --archives' -l archives -d 'List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named'
complete -c xception -n '__xception_at classify' -l include -r -f -d 'Only these, of what is found'
complete -c xception -n '__xception_at classify' -l exclude -r -f -d 'Not these, of what is found'
complete -c xception -n '__xception_at classify = --limit' -l limit -r -f -d 'At most N images, the first'
complete -c xception -n '__xception_at classify = --shard' -l shard -r -f -d 'Only the I-th of N parts, by a stable hash of the path (I from 1 to N)'
complete -c xception -n '__xception_at classify = -o --output' -s o -l output -r -F -d 'The table: a file, a directory of Parquet parts, or - for standard output'
complete -c xception -n '__xception_at classify = --format' -l format -r -f -a 'csv parquet jsonl' -d 'Of the table'
complete -c xception -n '__xception_at classify --overwrite' -l overwrite -d 'Replace FILE if it exists'
complete -c xception -n '__xception_at classify --csv-safe' -l csv-safe -d 'In CSV, put \' before texts that spreadsheets take for formulas; not to be undone'
complete -c xception -n '__xception_at classify = --errors-out' -l errors-out -r -F -d 'Write the paths of the images that failed to FILE, each ended by NUL, for - -0'
complete -c xception -n '__xception_at classify = --max-errors' -l max-errors -r -f -d 'Stop once more than N images have failed; what was done is kept'
complete -c xception -n '__xception_at classify --restart' -l restart -d 'Start over, whatever an earlier run has left'
complete -c xception -n '__xception_at classify --retry-errors' -l retry-errors -d 'Continuing, try images again that failed before'
complete -c xception -n '__xception_at classify = --part-rows' -l part-rows -r -f -d 'Rows after which work is on the disk for good'
complete -c xception -n '__xception_at classify = --part-seconds' -l part-seconds -r -f -d 'Or seconds, whichever comes first'
complete -c xception -n '__xception_at classify = --top' -l top -r -f -d 'Predictions a row'
complete -c xception -n '__xception_at classify = --min-score' -l min-score -r -f -d 'Leave out predictions below P; the row stays'
complete -c xception -n '__xception_at classify = --label-type' -l label-type -r -f -a 'name wnid both' -d 'Names, WordNet ids, or both'
complete -c xception -n '__xception_at classify = --features-out' -l features-out -r -F -d 'Write the embeddings of the same pass to FILE, as features does'
complete -c xception -n '__xception_at classify --raw-scores' -l raw-scores -d 'The head\'s output as it is, not made probabilities'
complete -c xception -n '__xception_at classify = --model' -l model -r -F -d 'A .keras file with an Xception in it, or a directory made by finetune, instead of --weights'
complete -c xception -n '__xception_at classify = --weights' -l weights -r -F -a 'imagenet none' -d 'ImageNet weights, random ones, or an HDF5 weights file'
complete -c xception -n '__xception_at classify = --classes' -l classes -r -f -d 'Number of classes; needed only with --weights none'
complete -c xception -n '__xception_at classify = --labels' -l labels -r -F -d 'Class names: one a line, or JSON'
complete -c xception -n '__xception_at classify = --image-size' -l image-size -r -f -d 'Side of the network\'s input in pixels'
complete -c xception -n '__xception_at classify = --input-range' -l input-range -r -f -a 'xception unit raw' -d 'What a foreign model was fed: [-1, 1], [0, 1] or [0, 255]'
complete -c xception -n '__xception_at classify = --weights-dir' -l weights-dir -r -f -a '(__fish_complete_directories)' -d 'Look here first for the ImageNet weights'
complete -c xception -n '__xception_at classify --offline' -l offline -d 'Never download anything'
complete -c xception -n '__xception_at classify = --seed' -l seed -r -f -d 'Of the random weights'
complete -c xception -n '__xception_at classify = --resize' -l resize -r -f -a 'crop squash pad' -d 'Crop the centre, squash to a square, or pad'
complete -c xception -n '__xception_at classify = --interpolation' -l interpolation -r -f -a 'nearest bilinear bicubic lanczos box hamming' -d 'Filter'
complete -c xception -n '__xception_at classify = --crop-pct' -l crop-pct -r -f -d 'Share of the shorter side that crop keeps'
complete -c xception -n '__xception_at classify = --jpeg-shrink' -l jpeg-shrink -r -f -a 'auto off' -d 'Let large JPEGs be shrunk while they are decoded'
complete -c xception -n '__xception_at classify = --max-pixels' -l max-pixels -r -f -d 'Refuse larger images'
complete -c xception -n '__xception_at classify = --batch-size' -l batch-size -r -f -a 'auto' -d 'Images in a batch'
complete -c xception -n '__xception_at classify = --precision' -l precision -r -f -a 'auto float32 tf32 bfloat16 float16' -d 'Arithmetic; auto is float32 on a CPU and float16 on a GPU with tensor cores'
complete -c xception -n '__xception_at classify = --device' -l device -r -f -a 'auto cpu gpu' -d 'Where to compute; auto takes a GPU if there is one'
complete -c xception -n '__xception_at classify = --workers' -l workers -r -f -d 'Images decoded at a time'
complete -c xception -n '__xception_at classify = --image-timeout' -l image-timeout -r -f -d 'For reading and decoding one image'
complete -c xception -n '__xception_at classify --profile' -l profile -d 'Close with a table of where the time went, and what would help'
complete -c xception -n '__xception_at classify' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at classify -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at classify --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at classify = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at classify -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at evaluate' -F
complete -c xception -n '__xception_at evaluate = --split' -l split -r -f -a 'train validation test all' -d 'Which of the splits of DATA'
complete -c xception -n '__xception_at evaluate = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at evaluate = --label-column' -l label-column -r -f -d 'The manifest\'s column of labels'
complete -c xception -n '__xception_at evaluate = -o --output' -s o -l output -r -f -a '(__fish_complete_directories)' -d 'Write metrics.json, per_class.csv, confusion_matrix.csv and .png, predictions.csv and mistakes.png to DIR'
complete -c xception -n '__xception_at evaluate --overwrite' -l overwrite -d 'Replace such files in DIR'
complete -c xception -n '__xception_at evaluate --json' -l json -d 'The metrics as JSON'
complete -c xception -n '__xception_at evaluate = --assert-top1' -l assert-top1 -r -f -d 'Exit with 6 if the top-1 accuracy is below X, from 0 to 1'
complete -c xception -n '__xception_at evaluate = --model' -l model -r -F -d 'A .keras file with an Xception in it, or a directory made by finetune, instead of --weights'
complete -c xception -n '__xception_at evaluate = --weights' -l weights -r -F -a 'imagenet none' -d 'ImageNet weights, random ones, or an HDF5 weights file'
complete -c xception -n '__xception_at evaluate = --classes' -l classes -r -f -d 'Number of classes; needed only with --weights none'
complete -c xception -n '__xception_at evaluate = --labels' -l labels -r -F -d 'Class names: one a line, or JSON'
complete -c xception -n '__xception_at evaluate = --image-size' -l image-size -r -f -d 'Side of the network\'s input in pixels'
complete -c xception -n '__xception_at evaluate = --input-range' -l input-range -r -f -a 'xception unit raw' -d 'What a foreign model was fed: [-1, 1], [0, 1] or [0, 255]'
complete -c xception -n '__xception_at evaluate = --weights-dir' -l weights-dir -r -f -a '(__fish_complete_directories)' -d 'Look here first for the ImageNet weights'
complete -c xception -n '__xception_at evaluate --offline' -l offline -d 'Never download anything'
complete -c xception -n '__xception_at evaluate = --seed' -l seed -r -f -d 'Of the random weights'
complete -c xception -n '__xception_at evaluate = --resize' -l resize -r -f -a 'crop squash pad' -d 'Crop the centre, squash to a square, or pad'
complete -c xception -n '__xception_at evaluate = --interpolation' -l interpolation -r -f -a 'nearest bilinear bicubic lanczos box hamming' -d 'Filter'
complete -c xception -n '__xception_at evaluate = --crop-pct' -l crop-pct -r -f -d 'Share of the shorter side that crop keeps'
complete -c xception -n '__xception_at evaluate = --jpeg-shrink' -l jpeg-shrink -r -f -a 'auto off' -d 'Let large JPEGs be shrunk while they are decoded'
complete -c xception -n '__xception_at evaluate = --max-pixels' -l max-pixels -r -f -d 'Refuse larger images'
complete -c xception -n '__xception_at evaluate = --batch-size' -l batch-size -r -f -a 'auto' -d 'Images in a batch'
complete -c xception -n '__xception_at evaluate = --precision' -l precision -r -f -a 'auto float32 tf32 bfloat16 float16' -d 'Arithmetic; auto is float32 on a CPU and float16 on a GPU with tensor cores'
complete -c xception -n '__xception_at evaluate = --device' -l device -r -f -a 'auto cpu gpu' -d 'Where to compute; auto takes a GPU if there is one'
complete -c xception -n '__xception_at evaluate = --workers' -l workers -r -f -d 'Images decoded at a time'
complete -c xception -n '__xception_at evaluate = --image-timeout' -l image-timeout -r -f -d 'For reading and decoding one image'
complete -c xception -n '__xception_at evaluate --profile' -l profile -d 'Close with a table of where the time went, and what would help'
complete -c xception -n '__xception_at evaluate' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at evaluate -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at evaluate --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at evaluate = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at evaluate -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at features' -F
complete -c xception -n '__xception_at features -0 --null' -s 0 -l null -d 'With -: names end in NUL (find -print0)'
complete -c xception -n '__xception_at features = --manifest' -l manifest -r -F -d 'A CSV or Parquet table of paths; its other columns are carried into the output'
complete -c xception -n '__xception_at features = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at features --escaped-paths' -l escaped-paths -d 'Paths in the manifest are escaped as in our output (\\xNN, \\\\)'
complete -c xception -n '__xception_at features --archives' -l archives -d 'List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named'
complete -c xception -n '__xception_at features' -l include -r -f -d 'Only these, of what is found'
complete -c xception -n '__xception_at features' -l exclude -r -f -d 'Not these, of what is found'
complete -c xception -n '__xception_at features = --limit' -l limit -r -f -d 'At most N images, the first'
complete -c xception -n '__xception_at features = --shard' -l shard -r -f -d 'Only the I-th of N parts, by a stable hash of the path (I from 1 to N)'
complete -c xception -n '__xception_at features = -o --output' -s o -l output -r -F -d 'The table: a file, a directory of Parquet parts, or - for standard output'
complete -c xception -n '__xception_at features = --format' -l format -r -f -a 'parquet csv npy' -d 'Of the table'
complete -c xception -n '__xception_at features --overwrite' -l overwrite -d 'Replace FILE if it exists'
complete -c xception -n '__xception_at features --csv-safe' -l csv-safe -d 'In CSV, put \' before texts that spreadsheets take for formulas; not to be undone'
complete -c xception -n '__xception_at features = --errors-out' -l errors-out -r -F -d 'Write the paths of the images that failed to FILE, each ended by NUL, for - -0'
complete -c xception -n '__xception_at features = --max-errors' -l max-errors -r -f -d 'Stop once more than N images have failed; what was done is kept'
complete -c xception -n '__xception_at features --restart' -l restart -d 'Start over, whatever an earlier run has left'
complete -c xception -n '__xception_at features --retry-errors' -l retry-errors -d 'Continuing, try images again that failed before'
complete -c xception -n '__xception_at features = --part-rows' -l part-rows -r -f -d 'Rows after which work is on the disk for good'
complete -c xception -n '__xception_at features = --part-seconds' -l part-seconds -r -f -d 'Or seconds, whichever comes first'
complete -c xception -n '__xception_at features = --pooling' -l pooling -r -f -a 'avg max none' -d 'Of maps: their average or maximum, or the map itself (not in CSV)'
complete -c xception -n '__xception_at features = --layer' -l layer -r -f -d 'Take another layer\'s output; info --layers lists them'
complete -c xception -n '__xception_at features = --dtype' -l dtype -r -f -a 'float32 float16' -d 'Type of the numbers'
complete -c xception -n '__xception_at features --normalize' -l normalize -d 'Scale each vector to unit length'
complete -c xception -n '__xception_at features = --model' -l model -r -F -d 'A .keras file with an Xception in it, or a directory made by finetune, instead of --weights'
complete -c xception -n '__xception_at features = --weights' -l weights -r -F -a 'imagenet none' -d 'ImageNet weights, random ones, or an HDF5 weights file'
complete -c xception -n '__xception_at features = --image-size' -l image-size -r -f -d 'Side of the network\'s input in pixels'
complete -c xception -n '__xception_at features = --input-range' -l input-range -r -f -a 'xception unit raw' -d 'What a foreign model was fed: [-1, 1], [0, 1] or [0, 255]'
complete -c xception -n '__xception_at features = --weights-dir' -l weights-dir -r -f -a '(__fish_complete_directories)' -d 'Look here first for the ImageNet weights'
complete -c xception -n '__xception_at features --offline' -l offline -d 'Never download anything'
complete -c xception -n '__xception_at features = --seed' -l seed -r -f -d 'Of the random weights'
complete -c xception -n '__xception_at features = --resize' -l resize -r -f -a 'crop squash pad' -d 'Crop the centre, squash to a square, or pad'
complete -c xception -n '__xception_at features = --interpolation' -l interpolation -r -f -a 'nearest bilinear bicubic lanczos box hamming' -d 'Filter'
complete -c xception -n '__xception_at features = --crop-pct' -l crop-pct -r -f -d 'Share of the shorter side that crop keeps'
complete -c xception -n '__xception_at features = --jpeg-shrink' -l jpeg-shrink -r -f -a 'auto off' -d 'Let large JPEGs be shrunk while they are decoded'
complete -c xception -n '__xception_at features = --max-pixels' -l max-pixels -r -f -d 'Refuse larger images'
complete -c xception -n '__xception_at features = --batch-size' -l batch-size -r -f -a 'auto' -d 'Images in a batch'
complete -c xception -n '__xception_at features = --precision' -l precision -r -f -a 'auto float32 tf32 bfloat16 float16' -d 'Arithmetic; auto is float32 on a CPU and float16 on a GPU with tensor cores'
complete -c xception -n '__xception_at features = --device' -l device -r -f -a 'auto cpu gpu' -d 'Where to compute; auto takes a GPU if there is one'
complete -c xception -n '__xception_at features = --workers' -l workers -r -f -d 'Images decoded at a time'
complete -c xception -n '__xception_at features = --image-timeout' -l image-timeout -r -f -d 'For reading and decoding one image'
complete -c xception -n '__xception_at features --profile' -l profile -d 'Close with a table of where the time went, and what would help'
complete -c xception -n '__xception_at features' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at features -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at features --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at features = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at features -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at info' -F
complete -c xception -n '__xception_at info -0 --null' -s 0 -l null -d 'With -: names end in NUL (find -print0)'
complete -c xception -n '__xception_at info = --manifest' -l manifest -r -F -d 'A CSV or Parquet table of paths; its other columns are carried into the output'
complete -c xception -n '__xception_at info = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at info --escaped-paths' -l escaped-paths -d 'Paths in the manifest are escaped as in our output (\\xNN, \\\\)'
complete -c xception -n '__xception_at info --archives' -l archives -d 'List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named'
complete -c xception -n '__xception_at info' -l include -r -f -d 'Only these, of what is found'
complete -c xception -n '__xception_at info' -l exclude -r -f -d 'Not these, of what is found'
complete -c xception -n '__xception_at info = --limit' -l limit -r -f -d 'At most N images, the first'
complete -c xception -n '__xception_at info = --shard' -l shard -r -f -d 'Only the I-th of N parts, by a stable hash of the path (I from 1 to N)'
complete -c xception -n '__xception_at info = --max-pixels' -l max-pixels -r -f -d 'Count larger images as unreadable'
complete -c xception -n '__xception_at info --include-top --no-include-top' -l include-top -d 'With the classifier'
complete -c xception -n '__xception_at info --include-top --no-include-top' -l no-include-top -d 'Opposite of --include-top'
complete -c xception -n '__xception_at info = --pooling' -l pooling -r -f -a 'avg max none' -d 'Of the network without its top'
complete -c xception -n '__xception_at info = --model' -l model -r -F -d 'A .keras file with an Xception in it, or a directory made by finetune, instead of --weights'
complete -c xception -n '__xception_at info = --weights' -l weights -r -F -a 'imagenet none' -d 'ImageNet weights, random ones, or an HDF5 weights file'
complete -c xception -n '__xception_at info = --classes' -l classes -r -f -d 'Number of classes; needed only with --weights none'
complete -c xception -n '__xception_at info = --labels' -l labels -r -F -d 'Class names: one a line, or JSON'
complete -c xception -n '__xception_at info = --image-size' -l image-size -r -f -d 'Side of the network\'s input in pixels'
complete -c xception -n '__xception_at info = --input-range' -l input-range -r -f -a 'xception unit raw' -d 'What a foreign model was fed: [-1, 1], [0, 1] or [0, 255]'
complete -c xception -n '__xception_at info = --weights-dir' -l weights-dir -r -f -a '(__fish_complete_directories)' -d 'Look here first for the ImageNet weights'
complete -c xception -n '__xception_at info --offline' -l offline -d 'Never download anything'
complete -c xception -n '__xception_at info = --seed' -l seed -r -f -d 'Of the random weights'
complete -c xception -n '__xception_at info --layers' -l layers -d 'List every layer: names for --layer, shapes, parameters'
complete -c xception -n '__xception_at info --json' -l json -d 'Everything as JSON'
complete -c xception -n '__xception_at info' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at info -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at info --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at info = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at info -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at merge' -F
complete -c xception -n '__xception_at merge' -l source -r -F -d 'A source of the runs, as they were given it; again for each, in the same order'
complete -c xception -n '__xception_at merge -0 --null' -s 0 -l null -d 'With -: names end in NUL (find -print0)'
complete -c xception -n '__xception_at merge = --manifest' -l manifest -r -F -d 'A CSV or Parquet table of paths; its other columns are carried into the output'
complete -c xception -n '__xception_at merge = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at merge --escaped-paths' -l escaped-paths -d 'Paths in the manifest are escaped as in our output (\\xNN, \\\\)'
complete -c xception -n '__xception_at merge --archives' -l archives -d 'List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named'
complete -c xception -n '__xception_at merge' -l include -r -f -d 'Only these, of what is found'
complete -c xception -n '__xception_at merge' -l exclude -r -f -d 'Not these, of what is found'
complete -c xception -n '__xception_at merge = --limit' -l limit -r -f -d 'At most N images, the first'
complete -c xception -n '__xception_at merge = --shard' -l shard -r -f -d 'Only the I-th of N parts, by a stable hash of the path (I from 1 to N)'
complete -c xception -n '__xception_at merge = -o --output' -s o -l output -r -F -d 'The whole table; - is standard output'
complete -c xception -n '__xception_at merge = --format' -l format -r -f -a 'csv parquet jsonl npy' -d 'Of the table; another than the shards\' only if those are Parquet'
complete -c xception -n '__xception_at merge --overwrite' -l overwrite -d 'Replace FILE if it exists'
complete -c xception -n '__xception_at merge --mixed-machines' -l mixed-machines -d 'Join even if device or batch size differ: values agree within the precision, not bit for bit'
complete -c xception -n '__xception_at merge = --report' -l report -r -F -d 'Every finding as a line of JSON, not only the first of them; replaced if it exists'
complete -c xception -n '__xception_at merge' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at merge -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at merge --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at merge = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at merge -h --help' -s h -l help -d 'Show this message and exit'

complete -c xception -n '__xception_at verify' -F
complete -c xception -n '__xception_at verify -0 --null' -s 0 -l null -d 'With -: names end in NUL (find -print0)'
complete -c xception -n '__xception_at verify = --manifest' -l manifest -r -F -d 'A CSV or Parquet table of paths; its other columns are carried into the output'
complete -c xception -n '__xception_at verify = --path-column' -l path-column -r -f -d 'The manifest\'s column of paths'
complete -c xception -n '__xception_at verify --escaped-paths' -l escaped-paths -d 'Paths in the manifest are escaped as in our output (\\xNN, \\\\)'
complete -c xception -n '__xception_at verify --archives' -l archives -d 'List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named'
complete -c xception -n '__xception_at verify' -l include -r -f -d 'Only these, of what is found'
complete -c xception -n '__xception_at verify' -l exclude -r -f -d 'Not these, of what is found'
complete -c xception -n '__xception_at verify = --limit' -l limit -r -f -d 'At most N images, the first'
complete -c xception -n '__xception_at verify = --shard' -l shard -r -f -d 'Only the I-th of N parts, by a stable hash of the path (I from 1 to N)'
complete -c xception -n '__xception_at verify --json' -l json -d 'The findings as JSON'
complete -c xception -n '__xception_at verify = --report' -l report -r -F -d 'Every finding as a line of JSON, not only the first of them; replaced if it exists'
complete -c xception -n '__xception_at verify' -s v -l verbose -d 'Say more; twice, everything'
complete -c xception -n '__xception_at verify -q --quiet' -s q -l quiet -d 'Only errors'
complete -c xception -n '__xception_at verify --debug' -l debug -d 'Show tracebacks'
complete -c xception -n '__xception_at verify = --log-file' -l log-file -r -F -d 'Append all messages to FILE'
complete -c xception -n '__xception_at verify -h --help' -s h -l help -d 'Show this message and exit'
