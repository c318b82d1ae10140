//! The errors of main.cf and its parameters.
//!
//! Each text is where its rule is, in Postfix's words. The administrator has to mend every one of them.

use std::fmt::{self, Display};

use crate::log::Shown;

/// The length of the text after a mistake in `$name` syntax that is shown.
const SHOWN_TAIL: usize = 20;

/// Why a parameter cannot be used, or main.cf cannot be read. `Display` is Postfix's text after `fatal:`.
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

    /// Sets the parameter with the wrong value. The first one set counts.
    pub(super) fn about(mut self, parameter: &'static str) -> Error {
        self.parameter = self.parameter.or(Some(parameter));
        self
    }

    /// The parameter with the wrong value.
    pub fn parameter(&self) -> Option<&'static str> {
        self.parameter
    }

    /// The same error with another text.
    pub(super) fn with_text(self, text: String) -> Error {
        Error { text, ..self }
    }

    /// Adds the warnings that Postfix logs before the text, if the text alone does not tell the mistake.
    pub(super) fn after_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Error {
        self.warnings.extend(warnings);
        self
    }

    /// Adds the line that Postfix logs at level `error` before the text.
    pub(super) fn after_error(self, preceding: String) -> Error {
        Error {
            preceding: Some(preceding),
            ..self
        }
    }

    /// The warnings to log before this error, in order.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The line to log at level `error` before this error.
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

/// A mistake in `$name` syntax. Only the warning tells which.
pub(super) fn bad(warning: String) -> Error {
    Error::new("dictionary mail_dict: macro processing error").after_warnings([warning])
}

/// The same, with a warning of `WHAT at: "...BEFORE>>>AFTER"`.
pub(super) fn syntax(what: &str, before: &[u8], after: &[u8]) -> Error {
    let tail = after.get(..SHOWN_TAIL).unwrap_or(after);
    let (before, tail) = (Shown(before), Shown(tail));
    bad(format!("{what} at: \"...{before}>>>{tail}\""))
}
