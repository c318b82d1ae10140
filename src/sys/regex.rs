//! Regular expressions of the C library: regcomp(3), regexec(3).
//!
//! The tables of Postfix's users are written for them; another engine could let other clients in.

use std::ffi::CStr;
use std::fmt;

use libc::{REG_ESPACE, REG_EXTENDED, REG_ICASE, REG_NEWLINE, REG_NOMATCH, c_int, regex_t};
use nix::errno::Errno;

/// The flags of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Ignores case.
    pub ignore_case: bool,
    /// `^` and `$` also match at line ends, and `.` does not match a newline.
    pub newline: bool,
    /// The extended syntax, as in egrep.
    pub extended: bool,
}

impl Flags {
    fn bits(self) -> c_int {
        let bit = |on: bool, bit: c_int| if on { bit } else { 0 };
        bit(self.ignore_case, REG_ICASE)
            | bit(self.newline, REG_NEWLINE)
            | bit(self.extended, REG_EXTENDED)
    }
}

pub struct Regex {
    // Boxed, because the C library may keep pointers into it.
    raw: Box<regex_t>,
}

impl Regex {
    /// Compiles `pattern`. The error is the text of regerror(3).
    pub fn compile(pattern: &CStr, flags: Flags) -> Result<Regex, String> {
        // SAFETY: regex_t is plain numbers and pointers, for which all zeros is a valid value.
        let mut raw: Box<regex_t> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: `raw` is live and writable, and the pattern ends in NUL. The C library keeps only what `raw` owns.
        let code = unsafe { libc::regcomp(&mut *raw, pattern.as_ptr(), flags.bits()) };
        if code != 0 {
            // After a failure regcomp has freed its memory, so that only the box is dropped.
            return Err(text_of(code, &raw));
        }
        Ok(Regex { raw })
    }

    /// Whether `text` matches. An error if the C library has no memory for the search.
    ///
    /// glibc's regexec answers every error with `REG_NOMATCH`. Unlike Postfix, a want of memory is told from that by the
    /// errno that malloc(3) leaves (`tests/spec/differences.md`, 54).
    pub fn is_match(&self, text: &CStr) -> Result<bool, String> {
        Errno::clear();
        // SAFETY: `raw` was compiled and is not freed before it is dropped; the text ends in NUL; no matches are asked for.
        let code = unsafe { libc::regexec(&*self.raw, text.as_ptr(), 0, std::ptr::null_mut(), 0) };
        match code {
            0 => Ok(true),
            REG_NOMATCH if Errno::last() == Errno::ENOMEM => Err(text_of(REG_ESPACE, &self.raw)),
            REG_NOMATCH => Ok(false),
            _ => Err(text_of(code, &self.raw)),
        }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: `raw` was compiled, and is freed only here.
        unsafe { libc::regfree(&mut *self.raw) }
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Regex")
    }
}

fn text_of(code: c_int, raw: &regex_t) -> String {
    let mut text = [0_u8; 256];
    // SAFETY: `raw` went through regcomp; `text` is live and writable for the length given, and gets a NUL.
    unsafe { libc::regerror(code, raw, text.as_mut_ptr().cast(), text.len()) };
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::time::Duration;

    use nix::sys::resource::{Resource, setrlimit};

    use super::*;
    use crate::sys::{alarm, child};

    const PLAIN: Flags = Flags {
        ignore_case: false,
        newline: false,
        extended: true,
    };

    fn is_match(pattern: &CStr, flags: Flags, text: &CStr) -> bool {
        let regex = Regex::compile(pattern, flags).expect("pattern");
        regex.is_match(text).expect("match")
    }

    #[test]
    fn flags_mean_what_they_say() {
        let (ignore_case, newline, extended) = (true, true, false);
        assert!(is_match(c"^a+$", PLAIN, c"aa"));
        assert!(!is_match(c"^a+$", PLAIN, c"A"));
        assert!(is_match(
            c"^a+$",
            Flags {
                ignore_case,
                ..PLAIN
            },
            c"A"
        ));
        assert!(!is_match(c"^a$", PLAIN, c"b\na"));
        assert!(is_match(c"^a$", Flags { newline, ..PLAIN }, c"b\na"));
        assert!(is_match(c"^a+$", Flags { extended, ..PLAIN }, c"a+"));
    }

    #[test]
    fn what_is_no_expression_is_explained() {
        for (pattern, text) in [
            (c"a(b", "Unmatched ( or \\("),
            (c"[a", "Unmatched [, [^, [:, [., or [="),
            (c"*a", "Invalid preceding regular expression"),
        ] {
            let refused = Regex::compile(pattern, PLAIN).expect_err("refused");
            assert_eq!(refused, text);
        }
    }

    /// The search makes a new state at nearly each byte of the text, 2 KiB each: more than the C library has put by.
    #[test]
    fn a_search_without_memory_is_an_error() {
        alarm::init().expect("alarm");
        let pattern = format!("(a|b)*a{}c", "(a|b)".repeat(15));
        let pattern = CString::new(pattern).expect("pattern");
        let regex = Regex::compile(&pattern, PLAIN).expect("pattern");
        let mut number = 628_u32;
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if number >> 31 == 0 { b'a' } else { b'b' }
        };
        let mut text: Vec<u8> = (0..60_000).map(|_| next()).collect();
        text.push(b'c');
        *text.get_mut(60_000 - 16).expect("byte") = b'a';
        let text = CString::new(text).expect("text");
        let search = |memory| {
            let answer = child::bounded_child(Duration::from_secs(60), || {
                setrlimit(Resource::RLIMIT_AS, memory, memory).expect("limit");
                format!("{:?}", regex.is_match(&text)).into_bytes()
            });
            let answer = answer.expect("child").expect("in time");
            String::from_utf8(answer).expect("text")
        };
        assert_eq!(search(1 << 20), "Err(\"Memory exhausted\")");
        assert_eq!(search(u64::MAX), "Ok(true)");
    }
}
