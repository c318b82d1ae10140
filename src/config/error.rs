//! Why main.cf, or a parameter, will not do.
//!
//! The text stands where the rule stands, in Postfix's words. Everything here is the administrator's fault, or at least
//! only the administrator can mend it.

use std::fmt::{self, Display};

use crate::log::Shown;

/// How much of the text after a mistake in `$name` syntax is shown.
const SHOWN_TAIL: usize = 20;

/// Why a parameter cannot be used, or main.cf not be read. `Display` is the text that Postfix logs as `fatal:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    warnings: Vec<String>,
    preceding: Option<String>,
    parameter: Option<&'static str>,
}

impl Error {
    pub(super) fn new(text: impl Into<String>) -> Error {
        Error {
            text: text.into(),
            warnings: Vec::new(),
            preceding: None,
            parameter: None,
        }
    }

    /// Names the parameter whose value it is about. The one that was named first is the one that is wrong.
    pub(super) fn about(mut self, parameter: &'static str) -> Error {
        self.parameter = self.parameter.or(Some(parameter));
        self
    }

    /// The parameter whose value it is about.
    pub fn parameter(&self) -> Option<&'static str> {
        self.parameter
    }

    /// The same with other words.
    pub(super) fn with_text(self, text: String) -> Error {
        Error { text, ..self }
    }

    /// Adds what Postfix logs as warnings before the text, where that alone does not say what is wrong.
    pub(super) fn after_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Error {
        self.warnings.extend(warnings);
        self
    }

    /// Adds what Postfix logs at level `error` before the text.
    pub(super) fn after_error(self, preceding: String) -> Error {
        Error {
            preceding: Some(preceding),
            ..self
        }
    }

    /// What is to be logged as warnings before this, in order.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is to be logged at level `error` before this.
    pub fn preceding_error(&self) -> Option<&str> {
        self.preceding.as_deref()
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// A mistake in `$name` syntax. What is wrong is told by the warning alone.
pub(super) fn bad(warning: String) -> Error {
    Error::new("dictionary mail_dict: macro processing error").after_warnings([warning])
}

/// The same, with a warning of `WHAT at: "...BEFORE>>>AFTER"`.
pub(super) fn syntax(what: &str, before: &[u8], after: &[u8]) -> Error {
    let tail = after.get(..SHOWN_TAIL).unwrap_or(after);
    let (before, tail) = (Shown(before), Shown(tail));
    bad(format!("{what} at: \"...{before}>>>{tail}\""))
}
