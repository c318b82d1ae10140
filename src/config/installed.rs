//! The defaults with which the Postfix of this machine was built, where versions differ.
//!
//! They are read from a file of Postfix, only if such a default is asked for; no program is started. Follows
//! `tests/spec/versions.md`, 21 to 23.

use std::path::PathBuf;

use super::file::read_file;
use super::params::Param;
use super::{Config, Error};

/// The build settings of Debian's Postfix.
const MAKEDEFS: &str = "/usr/share/postfix/makedefs.out";

/// The defaults of versions whose file does not have them.
const DATABASE_TYPE: &str = "hash";
const CACHE_TYPE: &str = "btree";
const META_DIRECTORY: &str = "/etc/postfix";

pub(super) fn default_database_type(_: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(built_with("-DDEF_DB_TYPE=\\\"", "\\\"", DATABASE_TYPE).into_bytes())
}

pub(super) fn default_cache_db_type(_: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(built_with("-DDEF_CACHE_DB_TYPE=\\\"", "\\\"", CACHE_TYPE).into_bytes())
}

pub(super) fn meta_directory(_: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(default_meta_directory()
        .into_os_string()
        .into_encoded_bytes())
}

/// The default directory of dynamicmaps.cf.
pub fn default_meta_directory() -> PathBuf {
    built_with("# meta_directory=", "\n", META_DIRECTORY).into()
}

/// The text in the file between `start` and `end`, or `default`.
fn built_with(start: &str, end: &str, default: &str) -> String {
    let text = read_file(MAKEDEFS).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    named(&text, start, end).unwrap_or(default).to_owned()
}

fn named<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    let (value, _) = rest.split_once(end)?;
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_default_is_named_or_not() {
        let text = "# CCARGS=-DX -DDEF_DB_TYPE=\\\"cdb\\\" -DY\n# meta_directory=/usr/x\n# z=";
        assert_eq!(named(text, "-DDEF_DB_TYPE=\\\"", "\\\""), Some("cdb"));
        assert_eq!(named(text, "# meta_directory=", "\n"), Some("/usr/x"));
        assert_eq!(named(text, "-DDEF_CACHE_DB_TYPE=\\\"", "\\\""), None);
        assert_eq!(named(text, "# z=", "\n"), None);
    }
}
