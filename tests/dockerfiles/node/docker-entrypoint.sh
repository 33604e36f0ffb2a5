#!/bin/sh
set -e
echo "$(id -un) starts $* with $(ls node_modules | tr "\n" " ")"
