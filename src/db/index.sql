-- outcrop.db, version 1: every name, relation and record of a store.
--
-- *_at are whole nanoseconds since 1970, UTC. Digests are 32 bytes. What an image's config says in words (created)
-- is kept as it came. `condemned` is the epoch in which a row lost its last reference: it is invisible to whoever
-- starts later, and goes when nobody who started by then is left. `pending_boot` is the boot in which the bytes
-- were published and not yet made durable; NULL once they are.

-- uuid, pair (what files.db has, too), layout (direct), driver, made_at, made_by, boot, tags_log_size,
-- trees_unchecked.
create table meta (
    key text primary key,
    value any not null
) strict, without rowid;

-- Numbers are handed out below `safe`, which is durable before they are; after a power cut counting goes on there,
-- so that no number of a directory on disk comes back.
create table sequence (
    name text primary key,
    next integer not null,
    safe integer not null
) strict, without rowid;

create table epoch (
    n integer primary key,
    opened_at integer not null
) strict;

-- Bytes in blobs/. `removing`: the file may be gone.
create table blob (
    digest blob primary key check (length(digest) = 32),
    size integer not null,
    media_type text,
    made_at integer not null,
    pending_boot text,
    condemned integer,
    removing integer not null default 0 check (removing in (0, 1))
) strict, without rowid;
create index blob_pending on blob (pending_boot) where pending_boot is not null;
create index blob_condemned on blob (condemned) where condemned is not null;

-- What stands in a blob: a manifest or an index names others.
create table blob_link (
    blob blob not null references blob (digest) on delete cascade,
    child blob not null check (length(child) = 32),
    primary key (blob, child)
) strict, without rowid;
create index blob_link_child on blob_link (child);

-- Which compressed layer unpacks to what. Kept while the layer is, though the blob may be gone.
create table blob_layer (
    blob blob primary key check (length(blob) = 32),
    diff_id blob not null check (length(diff_id) = 32),
    compression text not null,
    size integer not null
) strict, without rowid;
create index blob_layer_diff on blob_layer (diff_id);

-- Where a blob is known to be.
create table blob_seen (
    digest blob not null check (length(digest) = 32),
    registry text not null,
    repository text not null,
    seen_at integer not null,
    primary key (digest, registry, repository)
) strict, without rowid;

create table build (
    id integer primary key autoincrement,
    started_at integer not null,
    finished_at integer,
    status text not null check (status in ('running', 'done', 'failed', 'cancelled', 'killed')),
    context text not null,
    dockerfile text not null,
    options text not null,
    lease text,
    image blob
) strict;
create index build_running on build (lease) where status = 'running';
create index build_of on build (context, dockerfile, id);

create table build_step (
    build integer not null references build (id) on delete cascade,
    n integer not null,
    stage text,
    lines text not null,
    instruction text not null,
    outcome text not null check (outcome in ('hit', 'ran', 'failed')),
    key_kind text,
    key blob,
    reason text,
    image blob,
    layer integer,
    took_ns integer not null,
    primary key (build, n)
) strict, without rowid;

-- `id` is the number its rows stand under in files.db. A layer that leans on what lies below (its archive leaves out
-- parent directories, or links into lower layers) is known for that base alone.
create table layer (
    id integer primary key,
    diff_id blob not null check (length(diff_id) = 32),
    base blob check (base is null or length(base) = 32),
    leans integer not null check (leans in (0, 1)),
    content_id blob not null check (length(content_id) = 32),
    size integer not null,
    tar_size integer not null,
    row_count integer not null,
    made_by text,
    build integer references build (id) on delete set null,
    made_at integer not null,
    pending_boot text,
    condemned integer,
    check (leans = 1 or base is null)
) strict;
create unique index layer_identity on layer (diff_id, ifnull(base, x''));
create index layer_build on layer (build) where build is not null;
create index layer_pending on layer (pending_boot) where pending_boot is not null;
create index layer_condemned on layer (condemned) where condemned is not null;

-- A stack of layers: its top and the stack below. `size` sums the layers'.
create table chain (
    chain_id blob primary key check (length(chain_id) = 32),
    parent blob references chain (chain_id),
    layer integer not null references layer (id),
    depth integer not null check (depth >= 1),
    size integer not null,
    condemned integer
) strict, without rowid;
create index chain_parent on chain (parent) where parent is not null;
create index chain_layer on chain (layer);
create index chain_condemned on chain (condemned) where condemned is not null;

-- A numbered tree of a driver. The row stands before the directory and goes after it. A Layered driver has one for
-- each layer, a Stacked one for each chain. `lease` holds it while nothing else does.
create table snapshot (
    id integer primary key,
    driver text not null,
    state text not null check (state in ('making', 'draft', 'sealed', 'removing')),
    layer integer references layer (id),
    chain blob references chain (chain_id),
    lease text,
    made_at integer not null,
    pending_boot text,
    check (layer is null or chain is null)
) strict;
create unique index snapshot_layer on snapshot (layer, driver) where layer is not null;
create unique index snapshot_chain on snapshot (chain, driver) where chain is not null;
create index snapshot_unsealed on snapshot (state) where state <> 'sealed';
create index snapshot_lease on snapshot (lease) where lease is not null;
create index snapshot_pending on snapshot (pending_boot) where pending_boot is not null;

-- Nearest first.
create table snapshot_parent (
    snapshot integer not null references snapshot (id) on delete cascade,
    n integer not null,
    parent integer not null references snapshot (id),
    primary key (snapshot, n)
) strict, without rowid;
create index snapshot_parent_of on snapshot_parent (parent);

-- Every image, the intermediate one after each instruction too; `parent` is the one before the last instruction.
-- The config is the blob of the same digest.
create table image (
    id blob primary key check (length(id) = 32),
    parent blob references image (id),
    chain blob references chain (chain_id),
    platform text not null,
    created text,
    created_by text,
    size integer not null,
    origin text not null check (origin in ('built', 'pulled', 'committed', 'imported', 'loaded', 'bootstrapped')),
    build integer references build (id) on delete set null,
    made_at integer not null,
    pending_boot text,
    condemned integer
) strict, without rowid;
create index image_parent on image (parent) where parent is not null;
create index image_chain on image (chain) where chain is not null;
create index image_build on image (build) where build is not null;
create index image_pending on image (pending_boot) where pending_boot is not null;
create index image_condemned on image (condemned) where condemned is not null;

-- `name` is a full reference (docker.io/library/debian:bookworm); `target` the manifest or index it was pulled as.
create table tag (
    name text primary key,
    image blob not null references image (id),
    target blob check (target is null or length(target) = 32),
    moved_at integer not null
) strict, without rowid;
create index tag_image on tag (image);

-- Every move of a tag; tags.log says the same. Nothing is ever taken out.
create table tag_log (
    seq integer primary key,
    name text not null,
    from_image blob,
    to_image blob,
    target blob,
    verb text not null,
    at integer not null,
    detail text
) strict;
create index tag_log_name on tag_log (name, seq);

create table repo_digest (
    repository text not null,
    digest blob not null check (length(digest) = 32),
    image blob not null references image (id) on delete cascade,
    primary key (repository, digest, image)
) strict, without rowid;
create index repo_digest_image on repo_digest (image);
create index repo_digest_digest on repo_digest (digest);

-- What a step came to. A record keeps its layer; steps that make none have no layer. `created` is what the image's
-- config says; with it the image of a hit is made again, equal to the byte. `image` is a hint.
create table cache_record (
    id integer primary key autoincrement,
    kind text not null check (kind in ('chain', 'content', 'observed')),
    key blob not null check (length(key) = 32),
    key_text text not null check (json_valid(key_text)),
    instruction text not null,
    layer integer references layer (id),
    created text not null,
    image blob,
    build integer references build (id) on delete set null,
    made_at integer not null,
    last_used_at integer not null,
    uses integer not null default 0,
    valid integer not null default 1 check (valid in (0, 1))
) strict;
create index cache_record_key on cache_record (key, kind, id) where valid = 1;
create index cache_record_instruction on cache_record (instruction, id);
create index cache_record_layer on cache_record (layer) where layer is not null;
create index cache_record_build on cache_record (build) where build is not null;

create table container (
    id text primary key check (length(id) = 64),
    name text not null unique,
    image blob not null references image (id),
    snapshot integer not null unique references snapshot (id),
    state text not null check (state in ('created', 'running', 'exited', 'removing')),
    exit_code integer,
    lease text,
    created_at integer not null,
    started_at integer,
    finished_at integer,
    auto_remove integer not null check (auto_remove in (0, 1)),
    config text not null check (json_valid(config))
) strict, without rowid;
create index container_image on container (image);
create index container_running on container (lease) where state = 'running';
create index container_starting on container (lease) where state = 'created' and lease is not null;
create index container_removing on container (state) where state = 'removing';

create table volume (
    name text primary key,
    made_at integer not null,
    labels text not null check (json_valid(labels)),
    anonymous integer not null check (anonymous in (0, 1))
) strict, without rowid;

create table container_volume (
    container text not null references container (id) on delete cascade,
    volume text not null references volume (name),
    destination text not null,
    primary key (container, destination)
) strict, without rowid;
create index container_volume_volume on container_volume (volume);

create table event (
    seq integer primary key autoincrement,
    at integer not null,
    type text not null,
    action text not null,
    actor text not null,
    attributes text not null check (json_valid(attributes))
) strict;

-- What is under way outside of this file and must be undone if its lease comes free: rows of a layer not yet
-- published, files, devices. Without a lease: what is to be removed.
create table intent (
    id integer primary key autoincrement,
    what text not null,
    number integer,
    detail text,
    lease text,
    at integer not null
) strict;
create index intent_what on intent (what, number);
create index intent_lease on intent (lease);

create view image_layer as
with recursive stack (image, chain_id) as (
    select id, chain from image where chain is not null
    union all
    select stack.image, chain.parent from stack join chain using (chain_id) where chain.parent is not null
)
select
    'sha256:' || lower(hex(stack.image)) as image,
    chain.depth as n,
    'sha256:' || lower(hex(layer.diff_id)) as diff_id,
    'sha256:' || lower(hex(chain.chain_id)) as chain_id,
    layer.id as layer,
    layer.size as size
from stack join chain using (chain_id) join layer on layer.id = chain.layer;

create view imagedb as
select
    'sha256:' || lower(hex(image.id)) as id,
    nullif('sha256:' || lower(hex(image.parent)), 'sha256:') as parent,
    (select group_concat(tag.name, ' ') from tag where tag.image = image.id) as tags,
    image.platform as platform,
    image.created as created,
    image.created_by as instruction,
    ifnull(chain.depth, 0) as layers,
    nullif('sha256:' || lower(hex(image.chain)), 'sha256:') as chain_id,
    image.size as size,
    image.origin as origin,
    image.build as build,
    image.pending_boot is null as durable,
    image.condemned is not null as condemned
from image left join chain on chain.chain_id = image.chain;

create view layerdb as
select
    'sha256:' || lower(hex(chain.chain_id)) as chain_id,
    nullif('sha256:' || lower(hex(chain.parent)), 'sha256:') as parent,
    'sha256:' || lower(hex(layer.diff_id)) as diff_id,
    'sha256:' || lower(hex(layer.content_id)) as content_id,
    chain.depth as depth,
    layer.size as size,
    chain.size as total_size,
    layer.tar_size as tar_size,
    layer.row_count as files,
    layer.id as layer,
    snapshot.driver as driver,
    snapshot.id as snapshot,
    layer.made_by as instruction,
    layer.build as build,
    strftime('%Y-%m-%dT%H:%M:%SZ', layer.made_at / 1000000000, 'unixepoch') as made,
    layer.pending_boot is null as durable,
    layer.condemned is not null or chain.condemned is not null as condemned
from chain
    join layer on layer.id = chain.layer
    left join snapshot on snapshot.state = 'sealed'
        and (snapshot.layer = chain.layer or snapshot.chain = chain.chain_id);

create view layer_cache as
select
    cache_record.id as id,
    cache_record.kind as kind,
    lower(hex(cache_record.key)) as key,
    cache_record.key_text as key_text,
    cache_record.instruction as instruction,
    cache_record.layer as layer,
    nullif('sha256:' || lower(hex(layer.diff_id)), 'sha256:') as diff_id,
    nullif('sha256:' || lower(hex(layer.content_id)), 'sha256:') as content_id,
    cache_record.created as created,
    nullif('sha256:' || lower(hex(cache_record.image)), 'sha256:') as image,
    cache_record.build as build,
    strftime('%Y-%m-%dT%H:%M:%SZ', cache_record.made_at / 1000000000, 'unixepoch') as made,
    strftime('%Y-%m-%dT%H:%M:%SZ', cache_record.last_used_at / 1000000000, 'unixepoch') as last_used,
    cache_record.uses as uses,
    cache_record.valid as valid
from cache_record left join layer on layer.id = cache_record.layer;
