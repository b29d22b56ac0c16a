#!/usr/bin/env bash
# Does the study hold at desk size? From a checkout, with the data set's folder: results/study/run.sh hfds/path/to/cifar10
# Every command goes on where it stopped.
set -euo pipefail
data="$1"
here="$(dirname "$0")"
declare -A networks=(
    [resnet20]="resnet20"
    [vit]="vit_xs(patch_size=4, embed_dim=96, depth=3)"
    [vit_gap]="vit_xs(patch_size=4, embed_dim=96, depth=3, global_pool='avg')"
    [vit_local]="vit_xs(patch_size=4, embed_dim=96, depth=3, global_pool='avg', local=3)"
    [alternet]="alternet_xs"
)
declare -A precision=([resnet20]=bfloat16 [alternet]=bfloat16 [vit]=float32 [vit_gap]=float32 [vit_local]=float32)
for part in 0.1:60 1.0:20; do # share of the training images, epochs
    for name in resnet20 vit vit_gap vit_local alternet; do
        stem="$here/${name}_${part%:*}"
        [ -e "$stem.safetensors" ] || landscape train --model "${networks[$name]}" --data "$data" \
            --fraction "${part%:*}" --epochs "${part#*:}" --precision "${precision[$name]}" --workers 1 \
            --out "$stem.safetensors"
        landscape spectrum "$stem.safetensors" --data "$data" --samples 512 --batches 32 --out "$stem.h5"
        landscape test "$stem.safetensors" --data "$data" --out "$stem.h5"
    done
done
landscape show "$here"/*.h5
