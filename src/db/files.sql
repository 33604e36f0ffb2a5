-- files.db, version 1: the rows of every file of every layer.
--
-- NULL stands for what a row has not: no digest, no target, no link group, no attributes, device 0:0.

create table file (
    layer integer not null,
    path blob not null,
    kind integer not null check (kind between 1 and 7),
    mode integer not null,
    uid integer not null,
    gid integer not null,
    size integer not null,
    mtime integer not null,
    digest blob check (digest is null or length(digest) = 32),
    target blob,
    link integer,
    rdev_major integer,
    rdev_minor integer,
    flags integer not null,
    xattrs blob,
    primary key (layer, path)
) strict, without rowid;

-- `value` is written where a commit must reach the disk and nothing else has changed; `pair` is what the index has
-- under `pair` too: the two belong together.
create table mark (
    n integer primary key check (n = 1),
    value integer not null,
    pair text not null
) strict;

create view files as
select
    layer,
    cast(path as text) as path,
    case kind
        when 1 then 'file' when 2 then 'dir' when 3 then 'symlink' when 4 then 'char' when 5 then 'block'
        when 6 then 'fifo' when 7 then 'whiteout'
    end as type,
    printf('%04o', mode) as mode,
    uid,
    gid,
    size,
    nullif('sha256:' || lower(hex(digest)), 'sha256:') as digest,
    strftime('%Y-%m-%dT%H:%M:%S', mtime / 1000000000 - (mtime % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (mtime % 1000000000 + 1000000000) % 1000000000) as mtime,
    cast(target as text) as target,
    link,
    rdev_major,
    rdev_minor,
    flags & 1 as opaque,
    (flags >> 1) & 1 as implied,
    xattrs
from file;
