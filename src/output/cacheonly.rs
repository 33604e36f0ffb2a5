//! `type=cacheonly`: nothing; what the steps came to is in the cache (buildx).

use super::fields::Fields;
use super::{Distant, Entry, Output, Product, Written};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry { name: "cacheonly", read };

#[derive(Debug)]
struct CacheOnly;

fn read(fields: Fields) -> Result<Box<dyn Output>> {
    fields.finish()?;
    Ok(Box::new(CacheOnly))
}

impl Output for CacheOnly {
    fn describe(&self) -> String {
        "nothing but the cache".into()
    }

    fn check(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn takes(&self, _: Option<&Distant>) -> bool {
        true
    }

    fn write(&self, _: &Product<'_>) -> Result<Written> {
        Ok(Written::default())
    }
}
