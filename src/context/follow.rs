//! A path, followed component by component as from the root of a container, in whatever tells what stands where.

use super::select::join;

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What stands at a path of which all that is above are directories.
pub(crate) enum Stands {
    Nothing,
    Dir,
    Link(Vec<u8>),
    Other,
}

/// Where a way ends.
pub(crate) enum End {
    /// At what stands there: a directory, or what is none and ends the way. Links are followed, the last one too.
    At(Vec<u8>),
    /// At a place where nothing stands; `straight`: no link led there.
    Nothing { place: Vec<u8>, straight: bool },
    /// At something that the way goes on below and that is no directory.
    Blocked,
    /// Among too many links.
    Loop,
}

/// Looks at every component of the way, as far as it goes.
pub(crate) fn follow<E>(way: &[u8], mut look: impl FnMut(&[u8]) -> Result<Stands, E>) -> Result<End, E> {
    let mut rest: Vec<Vec<u8>> = parts(way).rev().collect();
    let mut at: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == b".." {
            at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            continue;
        }
        let next = join(&at, &part);
        match look(&next)? {
            Stands::Nothing => return Ok(End::Nothing { place: next, straight: links == 0 }),
            Stands::Dir => at = next,
            Stands::Other if rest.is_empty() => return Ok(End::At(next)),
            Stands::Other => return Ok(End::Blocked),
            Stands::Link(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(End::Loop);
                }
                if target.starts_with(b"/") {
                    at.clear();
                }
                rest.extend(parts(&target).rev());
            }
        }
    }
    Ok(End::At(at))
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}
