//! Lookup tables, `type:name`.
//!
//! What a list needs to know of one: what it is called, whether parent domains are worth asking for, and whether a key
//! is in it. Authority: `tests/spec/client-access.md`, section 4.

use std::fmt::{self, Debug, Display};

/// How Postfix shows the flags of a table that it has opened for a list.
pub(super) const FLAGS: &str = "(0,lock|utf8_request)";

/// What a domain in a list stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentStyle {
    /// `example.com` is that name and every name below it.
    ParentAlso,
    /// `example.com` is that name only, `.example.com` is every name below it.
    DotOnly,
}

/// What the keys of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Each stands for itself; whoever looks for a name also asks for its parent domains.
    Fixed,
    /// Patterns, which can see to parent domains themselves.
    Pattern,
    /// Networks: no name can be in the table.
    Networks,
    /// The table has every key or answers no question: no client gets past it.
    Any,
}

/// The client that is looked up, in lower case.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ClientKeys<'a> {
    /// Nothing where it is open: the table is not going to be asked for it.
    pub(super) name: Option<&'a str>,
    /// Nothing where it is no address.
    pub(super) addr: Option<&'a str>,
}

/// A lookup without an answer; the table's own warnings about it, if it has any.
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

    /// Known for certain only after the first lookup: a table may be somebody else's to ask.
    fn keys(&self) -> Keys;

    /// The value of `key`, which is in lower case; `None` when the table does not have it. The other keys that the same
    /// client may be looked up by are for a table that is asked everything at once.
    fn find(&self, key: &str, client: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem>;

    /// Reads now what is read when the table is first asked, so that what is wrong with it is known.
    fn load(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// Closes what is open to be read or asked: no lookup comes after this one.
    fn close(&self) {}

    /// Reads all that the table says, if it can be read as a whole: it is going to be asked about one client after another.
    fn take_snapshot(&self) {}

    /// Whether what was opened is no longer what would be opened now. Only tables that Postfix watches say so.
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

/// What a lookup in a table says that could not be opened, or turned out to be unusable.
pub(super) fn unavailable(name: &str, reason: &str) -> Problem {
    Problem::from(format!("{name} is unavailable. {reason}"))
}

/// The keys under which a table with fixed keys may have a domain that includes `name`, the longest first.
pub(super) fn parents_of(name: &str, parents: ParentStyle) -> impl Iterator<Item = &str> {
    let from_dot = match parents {
        ParentStyle::ParentAlso => 1,
        ParentStyle::DotOnly => 0,
    };
    name.match_indices('.')
        .filter_map(move |(dot, _)| name.get(dot + from_dot..))
}
