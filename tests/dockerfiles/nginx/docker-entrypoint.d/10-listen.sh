#!/bin/sh
echo "10: $NGINX_VERSION"
