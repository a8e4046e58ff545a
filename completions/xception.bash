# Completion of xception for bash 4 and later. Written by tools/generate.py: edits are lost.

((BASH_VERSINFO[0] >= 4)) || return 0

# Sets options (an element holds all names of one), valued and repeatable for command $1; empty is the program.
_xception_options() {
    case $1 in
        '')
            options=('-v --verbose' '-q --quiet' --debug --log-file --version '-h --help')
            valued=" --log-file "
            repeatable=" -v --verbose "
            ;;
        classify)
            options=('-0 --null' --manifest --path-column --escaped-paths --archives --include
                --exclude --limit --shard '-o --output' --format --overwrite --csv-safe --errors-out
                --max-errors --restart --retry-errors --part-rows --part-seconds --top --min-score
                --label-type --features-out --raw-scores --model --weights --classes --labels
                --image-size --input-range --weights-dir --offline --seed --resize --interpolation
                --crop-pct --jpeg-shrink --max-pixels --batch-size --precision --device --workers
                --image-timeout --profile --runner --ray-address --ray-workers --cpus-per-worker
                --gpus-per-worker '-v --verbose' '-q --quiet' --debug --log-file '-h --help')
            valued=" --manifest --path-column --include --exclude --limit --shard -o --output --format \
                --errors-out --max-errors --part-rows --part-seconds --top --min-score --label-type \
                --features-out --model --weights --classes --labels --image-size --input-range \
                --weights-dir --seed --resize --interpolation --crop-pct --jpeg-shrink --max-pixels \
                --batch-size --precision --device --workers --image-timeout --runner --ray-address \
                --ray-workers --cpus-per-worker --gpus-per-worker --log-file "
            repeatable=" --include --exclude -v --verbose "
            ;;
        evaluate)
            options=(--split --path-column --label-column '-o --output' --overwrite --json
                --assert-top1 --model --weights --classes --labels --image-size --input-range
                --weights-dir --offline --seed --resize --interpolation --crop-pct --jpeg-shrink
                --max-pixels --batch-size --precision --device --workers --image-timeout --profile
                '-v --verbose' '-q --quiet' --debug --log-file '-h --help')
            valued=" --split --path-column --label-column -o --output --assert-top1 --model --weights --classes \
                --labels --image-size --input-range --weights-dir --seed --resize --interpolation \
                --crop-pct --jpeg-shrink --max-pixels --batch-size --precision --device --workers \
                --image-timeout --log-file "
            repeatable=" -v --verbose "
            ;;
        features)
            options=('-0 --null' --manifest --path-column --escaped-paths --archives --include
                --exclude --limit --shard '-o --output' --format --overwrite --csv-safe --errors-out
                --max-errors --restart --retry-errors --part-rows --part-seconds --pooling --layer
                --dtype --normalize --model --weights --image-size --input-range --weights-dir
                --offline --seed --resize --interpolation --crop-pct --jpeg-shrink --max-pixels
                --batch-size --precision --device --workers --image-timeout --profile --runner
                --ray-address --ray-workers --cpus-per-worker --gpus-per-worker '-v --verbose'
                '-q --quiet' --debug --log-file '-h --help')
            valued=" --manifest --path-column --include --exclude --limit --shard -o --output --format \
                --errors-out --max-errors --part-rows --part-seconds --pooling --layer --dtype --model \
                --weights --image-size --input-range --weights-dir --seed --resize --interpolation \
                --crop-pct --jpeg-shrink --max-pixels --batch-size --precision --device --workers \
                --image-timeout --runner --ray-address --ray-workers --cpus-per-worker --gpus-per-worker \
                --log-file "
            repeatable=" --include --exclude -v --verbose "
            ;;
        finetune)
            options=(--path-column --label-column --val-split '-o --output' --overwrite --restart
                --tensorboard --unfreeze --epochs --head-epochs --learning-rate --head-learning-rate
                --label-smoothing --dropout --mixup --weight-decay --class-weights
                '--calibrate --no-calibrate' --batch-size --patience --model --weights --image-size
                --input-range --weights-dir --offline --seed --resize --interpolation --crop-pct
                --jpeg-shrink --max-pixels --views '--flip --no-flip' --crop --colour --cache-dir
                --cache-size --precision --device --workers --image-timeout '-v --verbose' '-q --quiet'
                --debug --log-file '-h --help')
            valued=" --path-column --label-column --val-split -o --output --tensorboard --unfreeze --epochs \
                --head-epochs --learning-rate --head-learning-rate --label-smoothing --dropout --mixup \
                --weight-decay --class-weights --batch-size --patience --model --weights --image-size \
                --input-range --weights-dir --seed --resize --interpolation --crop-pct --jpeg-shrink \
                --max-pixels --views --crop --colour --cache-dir --cache-size --precision --device \
                --workers --image-timeout --log-file "
            repeatable=" -v --verbose "
            ;;
        info)
            options=('-0 --null' --manifest --path-column --escaped-paths --archives --include
                --exclude --limit --shard --max-pixels '--include-top --no-include-top' --pooling
                --model --weights --classes --labels --image-size --input-range --weights-dir --offline
                --seed --layers --json '-v --verbose' '-q --quiet' --debug --log-file '-h --help')
            valued=" --manifest --path-column --include --exclude --limit --shard --max-pixels --pooling \
                --model --weights --classes --labels --image-size --input-range --weights-dir --seed \
                --log-file "
            repeatable=" --include --exclude -v --verbose "
            ;;
        merge)
            options=(--source '-0 --null' --manifest --path-column --escaped-paths --archives --include
                --exclude --limit --shard '-o --output' --format --overwrite --mixed-machines --report
                '-v --verbose' '-q --quiet' --debug --log-file '-h --help')
            valued=" --source --manifest --path-column --include --exclude --limit --shard -o --output --format \
                --report --log-file "
            repeatable=" --source --include --exclude -v --verbose "
            ;;
        verify)
            options=('-0 --null' --manifest --path-column --escaped-paths --archives --include
                --exclude --limit --shard --json --report '-v --verbose' '-q --quiet' --debug
                --log-file '-h --help')
            valued=" --manifest --path-column --include --exclude --limit --shard --report --log-file "
            repeatable=" --include --exclude -v --verbose "
            ;;
        *) return 1 ;;
    esac
}

# Sets words and paths to what completes option $2 of command $1, or with an empty $2 its arguments.
_xception_values() {
    case "$1 $2" in
        ' --log-file') paths=-f ;;
        'classify ') paths=-f ;;
        'classify --manifest') paths=-f ;;
        'classify -o' | 'classify --output') paths=-f ;;
        'classify --format') words=(csv parquet jsonl) ;;
        'classify --errors-out') paths=-f ;;
        'classify --label-type') words=(name wnid both) ;;
        'classify --features-out') paths=-f ;;
        'classify --model') paths=-f ;;
        'classify --weights') words=(imagenet none) paths=-f ;;
        'classify --labels') paths=-f ;;
        'classify --input-range') words=(xception unit raw) ;;
        'classify --weights-dir') paths=-d ;;
        'classify --resize') words=(crop squash pad) ;;
        'classify --interpolation') words=(nearest bilinear bicubic lanczos box hamming) ;;
        'classify --jpeg-shrink') words=(auto off) ;;
        'classify --batch-size') words=(auto) ;;
        'classify --precision') words=(auto float32 tf32 bfloat16 float16) ;;
        'classify --device') words=(auto cpu gpu) ;;
        'classify --runner') words=(local ray) ;;
        'classify --log-file') paths=-f ;;
        'evaluate ') paths=-f ;;
        'evaluate --split') words=(train validation test all) ;;
        'evaluate -o' | 'evaluate --output') paths=-d ;;
        'evaluate --model') paths=-f ;;
        'evaluate --weights') words=(imagenet none) paths=-f ;;
        'evaluate --labels') paths=-f ;;
        'evaluate --input-range') words=(xception unit raw) ;;
        'evaluate --weights-dir') paths=-d ;;
        'evaluate --resize') words=(crop squash pad) ;;
        'evaluate --interpolation') words=(nearest bilinear bicubic lanczos box hamming) ;;
        'evaluate --jpeg-shrink') words=(auto off) ;;
        'evaluate --batch-size') words=(auto) ;;
        'evaluate --precision') words=(auto float32 tf32 bfloat16 float16) ;;
        'evaluate --device') words=(auto cpu gpu) ;;
        'evaluate --log-file') paths=-f ;;
        'features ') paths=-f ;;
        'features --manifest') paths=-f ;;
        'features -o' | 'features --output') paths=-f ;;
        'features --format') words=(parquet csv npy) ;;
        'features --errors-out') paths=-f ;;
        'features --pooling') words=(avg max none) ;;
        'features --dtype') words=(float32 float16) ;;
        'features --model') paths=-f ;;
        'features --weights') words=(imagenet none) paths=-f ;;
        'features --input-range') words=(xception unit raw) ;;
        'features --weights-dir') paths=-d ;;
        'features --resize') words=(crop squash pad) ;;
        'features --interpolation') words=(nearest bilinear bicubic lanczos box hamming) ;;
        'features --jpeg-shrink') words=(auto off) ;;
        'features --batch-size') words=(auto) ;;
        'features --precision') words=(auto float32 tf32 bfloat16 float16) ;;
        'features --device') words=(auto cpu gpu) ;;
        'features --runner') words=(local ray) ;;
        'features --log-file') paths=-f ;;
        'finetune ') paths=-f ;;
        'finetune -o' | 'finetune --output') paths=-f ;;
        'finetune --tensorboard') paths=-d ;;
        'finetune --unfreeze') words=(none block14 block13 block12 block11 block10 block9 block8 block7 block6 block5
            block4 block3 block2 block1 all) ;;
        'finetune --class-weights') words=(none auto) ;;
        'finetune --model') paths=-f ;;
        'finetune --weights') words=(imagenet none) paths=-f ;;
        'finetune --input-range') words=(xception unit raw) ;;
        'finetune --weights-dir') paths=-d ;;
        'finetune --resize') words=(crop squash pad) ;;
        'finetune --interpolation') words=(nearest bilinear bicubic lanczos box hamming) ;;
        'finetune --jpeg-shrink') words=(auto off) ;;
        'finetune --cache-dir') paths=-d ;;
        'finetune --precision') words=(auto float32 tf32 bfloat16 float16) ;;
        'finetune --device') words=(auto cpu gpu) ;;
        'finetune --log-file') paths=-f ;;
        'info ') paths=-f ;;
        'info --manifest') paths=-f ;;
        'info --pooling') words=(avg max none) ;;
        'info --model') paths=-f ;;
        'info --weights') words=(imagenet none) paths=-f ;;
        'info --labels') paths=-f ;;
        'info --input-range') words=(xception unit raw) ;;
        'info --weights-dir') paths=-d ;;
        'info --log-file') paths=-f ;;
        'merge ') paths=-f ;;
        'merge --source') paths=-f ;;
        'merge --manifest') paths=-f ;;
        'merge -o' | 'merge --output') paths=-f ;;
        'merge --format') words=(csv parquet jsonl npy) ;;
        'merge --report') paths=-f ;;
        'merge --log-file') paths=-f ;;
        'verify ') paths=-f ;;
        'verify --manifest') paths=-f ;;
        'verify --report') paths=-f ;;
        'verify --log-file') paths=-f ;;
    esac
}

_xception() {
    local IFS=$' \t\n'
    local -a options=() words=()
    local valued='' repeatable='' paths=''
    local command='' given=' ' pending='' rest='' glued='' prefix=''
    local cur=${COMP_WORDS[COMP_CWORD]} word names name i j

    COMPREPLY=()
    _xception_options ''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word =~ ^[=:]+$ ]]; then
            # Readline cuts words at these: what follows belongs to the word before.
            glued=1
        elif [[ $glued ]]; then
            glued='' pending=''
        elif [[ $pending ]]; then
            pending=''
        elif [[ ! $rest && $word == -- ]]; then
            rest=1
        elif [[ ! $rest && $word == --* ]]; then
            given+="${word%%=*} "
            [[ $valued == *" $word "* ]] && pending=$word
        elif [[ ! $rest && $word == -?* ]]; then
            for ((j = 1; j < ${#word}; j++)); do
                name=-${word:j:1}
                given+="$name "
                [[ $valued == *" $name "* ]] || continue
                ((j + 1 < ${#word})) || pending=$name
                break
            done
        elif [[ ! $command ]]; then
            _xception_options "$word" || return 0
            command=$word given=' ' rest=''
        fi
    done

    if [[ $pending && $cur == = ]]; then
        cur=''
    elif [[ $cur =~ ^[=:]+$ || ($glued && ! $pending) ]]; then
        return 0
    elif [[ ! $pending && ! $rest && $cur == --*=* ]]; then
        # Only where = was taken out of COMP_WORDBREAKS.
        pending=${cur%%=*} prefix=${cur%%=*}= cur=${cur#*=}
    fi

    if [[ $pending ]]; then
        _xception_values "$command" "$pending"
    elif [[ ! $rest && $cur == -* ]]; then
        for names in "${options[@]}"; do
            for name in $names; do
                [[ $given == *" $name "* && $repeatable != *" $name "* ]] && continue 2
            done
            words+=($names)
        done
    elif [[ ! $command ]]; then
        words=(classify evaluate features finetune info merge verify)
    else
        _xception_values "$command" ''
    fi

    for word in ${words[@]+"${words[@]}"}; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$prefix$word")
    done
    if [[ $paths ]]; then
        # Makes readline quote names and put a slash after directories; fails outside of a real completion.
        compopt -o filenames 2>/dev/null
        while IFS= read -r word; do
            COMPREPLY+=("$prefix$word")
        done < <(compgen "$paths" -- "$cur")
    fi
    return 0
}

complete -F _xception xception
