//! Lookup tables, `type:name`: their name, the kind of their keys, and whether they have a key.
//!
//! Follows `tests/spec/client-access.md`, section 4. The types are left to the other files of `lookup`.

use std::fmt::{self, Debug, Display};

/// Postfix's text for the flags of a table that it has opened for a list.
pub(super) const FLAGS: &str = "(0,lock|utf8_request)";

/// The meaning of a domain in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentStyle {
    /// `example.com` is that name and every name below it.
    ParentAlso,
    /// `example.com` is that name only, `.example.com` is every name below it.
    DotOnly,
}

/// The kind of a table's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Names: a lookup of a name also asks for its parent domains.
    Fixed,
    /// Patterns, which can cover parent domains themselves.
    Pattern,
    /// Networks: the table has no names.
    Networks,
    /// The table has every key, or fails for every key: the evaluation ends there for every client.
    Any,
}

/// The client that is looked up, in lower case.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ClientKeys<'a> {
    /// `None` if the name is open: it is not looked up.
    pub(super) name: Option<&'a str>,
    /// `None` if it is no address.
    pub(super) addr: Option<&'a str>,
}

impl ClientKeys<'_> {
    /// Whether the word is the client's address, its name, or what its name ends with, in upper or lower case.
    pub(super) fn has(&self, word: &[u8]) -> bool {
        let is_end_of = |name: &str| {
            let before = name.len().checked_sub(word.len());
            let end = before.and_then(|before| name.as_bytes().get(before..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(word))
        };
        self.name.is_some_and(is_end_of)
            || self
                .addr
                .is_some_and(|addr| addr.as_bytes().eq_ignore_ascii_case(word))
    }
}

/// A failed lookup, with the table's own warnings, if any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Problem(pub(super) Vec<String>);

impl From<String> for Problem {
    fn from(warning: String) -> Problem {
        Problem(vec![warning])
    }
}

pub(super) trait Table: Debug {
    /// `type:name`.
    fn name(&self) -> &str;

    /// For `proxy:` tables the server decides; call `find` first.
    fn keys(&self) -> Keys;

    /// The value of `key`, which is in lower case; `None` if the table does not have it. `client` has the other keys of
    /// the client, for a table that is asked for all keys at once.
    fn find(&self, key: &str, client: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem>;

    /// Reads the table now, so that its errors are known.
    fn load(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// Closes the table after its last lookup.
    fn close(&self) {}

    /// Reads the whole table, if that is possible: many clients will be looked up.
    fn take_snapshot(&self) {}

    /// Whether the file has changed since it was opened. Only for tables that Postfix watches.
    fn has_changed(&self) -> bool {
        false
    }
}

/// Why a table cannot be opened, in Postfix's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason(pub(super) String);

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error of a lookup in a table that could not be opened, or is unusable.
pub(super) fn unavailable(name: &str, reason: &str) -> Problem {
    Problem::from(format!("{name} is unavailable. {reason}"))
}

/// The keys under which a table of names may have a domain that includes `name`, the longest first.
pub(super) fn parents_of(name: &str, parents: ParentStyle) -> impl Iterator<Item = &str> {
    let from_dot = match parents {
        ParentStyle::ParentAlso => 1,
        ParentStyle::DotOnly => 0,
    };
    name.match_indices('.')
        .filter_map(move |(dot, _)| name.get(dot + from_dot..))
}
