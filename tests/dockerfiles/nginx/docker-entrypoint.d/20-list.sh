#!/bin/sh
echo "20: $(ls /usr/share/nginx/html | tr "\n" " ")"
