//! Lookup tables, `type:name`.
//!
//! What a list needs to know of one: what it is called, whether parent domains are worth asking for, and whether a key
//! is in it. A table that cannot be opened takes its place in the list all the same, and refuses to answer: the list
//! must not go on as if it were empty. Authority: the client access page of the specification, section 4.

use std::fmt::Debug;
use std::rc::Rc;

/// Whether a key of the table stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// It does; whoever looks for a name also asks for its parent domains.
    Fixed,
    /// Keys are patterns, which can see to parent domains themselves.
    Pattern,
}

/// A lookup without an answer; the table's own warning about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem(pub(super) String);

pub(super) trait Table: Debug {
    /// `type:name`.
    fn name(&self) -> &str;

    fn keys(&self) -> Keys;

    /// The value of `key`, which is in lower case; `None` when the table does not have it.
    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Problem>;

    /// Whether what was opened is no longer what would be opened now. Only tables that Postfix watches say so.
    fn has_changed(&self) -> bool {
        false
    }
}

/// Opens `type:name` for reading, or says why it cannot be.
pub(super) fn open(table: &str) -> Result<Rc<dyn Table>, String> {
    match table.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Err(format!("unsupported dictionary type: {kind}"))
        }
        Some(_) | None => Err(format!(
            "open dictionary: expecting \"type:name\" form instead of \"{table}\""
        )),
    }
}

/// A table that could not be opened.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) name: String,
    pub(super) reason: String,
}

impl Table for Unopened {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Pattern
    }

    fn find(&self, _: &str) -> Result<Option<Vec<u8>>, Problem> {
        let Unopened { name, reason } = self;
        Err(Problem(format!("{name} is unavailable. {reason}")))
    }
}
