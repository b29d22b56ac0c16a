#!/usr/bin/env bash
# Does the study hold at desk size? From a checkout, with the data set's folder: results/study/run.sh hfds/path/to/cifar10
# Results files appear beside this script, weights in study/ of the working folder. Every command goes on where it
# stopped. One network to a core at a time.
set -euo pipefail
cores="$(nproc)"
export DATA="$1" HERE="$(cd "$(dirname "$0")" && pwd)" OMP_NUM_THREADS=1

one() { # name, model, share of the training images, epochs; a 12th of them warm-up
    local stem="${1}_$3" checkpoint="study/${1}_$3.safetensors" epochs="study/${1}_$3"
    mkdir -p study
    [ -e "$checkpoint" ] || landscape train --model "$2" --data "$DATA" --fraction "$3" --epochs "$4" \
        --warmup-epochs $(($4 / 12)) --dtype bfloat16 --trajectory "$epochs" --out "$checkpoint" --quiet
    landscape test "$checkpoint" --data "$DATA" --out "$HERE/$stem.h5" --quiet
    landscape spectrum "$checkpoint" --data "$DATA" --samples 512 --batches 32 --weight-decay 0.05 --out "$HERE/$stem.h5" --quiet
    landscape series $(printf "$epochs/epoch%0${#4}d.safetensors " $(($4 / 24)) $(($4 / 8)) $(($4 / 4)) $(($4 / 2)) "$4") \
        --data "$DATA" --samples 256 --batches 16 --weight-decay 0.05 --out "$HERE/$stem-epochs.h5" --quiet
}
export -f one

vit="vit_xs(patch_size=4, embed_dim=96, depth=3"
for part in "0.1 240" "1.0 24"; do # as many steps of training with a tenth of the images
    echo "resnet20;resnet20;$part"
    echo "alternet20;alternet_xs(stages=('ccc', 'cca', 'cca'));$part"
    echo "vit;$vit);$part"
    echo "vit_gap;$vit, global_pool='avg');$part"
    echo "vit_local;$vit, global_pool='avg', local=3);$part"
done | tr '\n' '\0' | xargs -0 -n 1 -P "$cores" bash -c \
    'set -euo pipefail; IFS=";" read -r name model part <<< "$1"; one "$name" "$model" $part' _
# A second training of two of them, seed 1, of which twelve epochs are looked at.
second() { # name, model
    local stem="${1}_1.0-seed1" epochs="study/${1}_1.0-seed1"
    landscape train --model "$2" --data "$DATA" --epochs 24 --warmup-epochs 2 --dtype bfloat16 --seed 1 \
        --trajectory "$epochs" --out "$epochs.safetensors" --quiet
    landscape series "$epochs"/epoch{01,03,06,12}.safetensors \
        --data "$DATA" --samples 256 --batches 16 --weight-decay 0.05 --out "$HERE/$stem-epochs.h5" --quiet
}
second vit "$vit)"
second resnet20 resnet20
landscape show "$HERE"/*_?.?.h5
landscape show "$HERE"/*-epochs.h5
for share in 0.1 1.0; do
    mkdir -p "study/pictures_$share"
    landscape plot "$HERE"/*_"$share"-epochs.h5 --out "study/pictures_$share" --quiet
    cp "study/pictures_$share/all-series.png" "$HERE/series-$share.png"
done
