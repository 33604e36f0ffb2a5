//! The flags of `build` for caches of other stores.

use outcrop::cache::{self, Options};
use outcrop::error::Result;

#[derive(clap::Args)]
pub(super) struct CacheArgs {
    /// Look steps up in this cache, too: NAME of a registry, or type=local,src=DIRECTORY; may be given several times
    #[arg(long, value_name = "NAME|type=KIND,..")]
    cache_from: Vec<String>,
    /// Write what the steps came to for other stores: type=local,dest=DIRECTORY[,mode=max], type=registry,ref=NAME or
    /// type=inline; may be given several times
    #[arg(long, value_name = "NAME|type=KIND,..")]
    cache_to: Vec<String>,
}

impl CacheArgs {
    pub(super) fn options(&self) -> Result<Options> {
        let said =
            |texts: &[String]| texts.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>();
        Ok(Options {
            to: said(&self.cache_to).iter().map(|text| cache::parse_to(text)).collect::<Result<_>>()?,
            from: said(&self.cache_from).iter().map(|text| cache::parse_from(text)).collect::<Result<_>>()?,
        })
    }
}
