#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
  chmod 00700 "$PGDATA"
  exec su -s /bin/sh postgres "$0" "$@"
fi
[ -s "$PGDATA/PG_VERSION" ] || echo "$PG_MAJOR" > "$PGDATA/PG_VERSION"
echo "$1 $PG_VERSION as $(id -un) in $(stat -c %a:%U "$PGDATA")"
