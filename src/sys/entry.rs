//! The entry point: how the C library starts the program, without the standard library's start.
//!
//! The standard library's checks are those of `sys::inherit`, and its report of a stack overflow would take a tenth of
//! the time of a process that serves one message; an overflow still ends the process at the guard page. The environment
//! is the standard library's; with musl it has no arguments. No code runs after `main`: text for standard output must
//! end with a line end, or be flushed. What the program does is left to `service`.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// The array that `main` got. Null before, and in a test or a fuzzer, which have another `main`.
static ARGUMENTS: AtomicPtr<*const libc::c_char> = AtomicPtr::new(null_mut());

/// Keeps the arguments of `main` for [`arguments`].
///
/// # Safety
///
/// `argv` is an array of pointers to strings that ends in a null pointer. It stays unchanged until the process ends.
#[cfg(not(any(test, fuzzing)))]
pub unsafe fn keep_arguments(argv: *mut *const libc::c_char) {
    ARGUMENTS.store(argv, Relaxed);
}

/// The command line, with the program's name first. With another `main` it is the standard library's.
pub fn arguments() -> Vec<OsString> {
    let argv = ARGUMENTS.load(Relaxed);
    if argv.is_null() {
        return std::env::args_os().collect();
    }
    // SAFETY: the caller of `keep_arguments` has said that this is such an array.
    unsafe { strings(argv) }
}

/// Copies the strings of an array.
///
/// # Safety
///
/// `array` is an array of pointers to strings that ends in a null pointer. All of it lives during the call.
unsafe fn strings(array: *const *const libc::c_char) -> Vec<OsString> {
    let string = |index| {
        // SAFETY: `map_while` stops at the null pointer that ends the array: `index` is within it.
        let place = unsafe { array.add(index) };
        // SAFETY: `place` is therefore a pointer of the array.
        let start = unsafe { *place };
        // SAFETY: each pointer before the null pointer leads to a string, which ends in a NUL.
        let string = (!start.is_null()).then(|| unsafe { CStr::from_ptr(start) })?;
        Some(OsStr::from_bytes(string.to_bytes()).to_owned())
    };
    (0..).map_while(string).collect()
}

/// Makes `$run`, a function without arguments that returns the exit status, the program's entry point.
#[cfg(not(any(test, fuzzing)))]
macro_rules! entry_point {
    ($run:path) => {
        /// The name that the C library's start-up code calls.
        #[allow(
            unsafe_code,
            reason = "the name of a C function: nothing else here has it"
        )]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: std::ffi::c_int,
            argv: *mut *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: C11, 5.1.2.2.1, guarantees this for the array of `main`. The program does not change the array or
            // the strings.
            unsafe { crate::sys::entry::keep_arguments(argv) };
            $run().into()
        }
    };
}
#[cfg(not(any(test, fuzzing)))]
pub(crate) use entry_point;

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "qmqpd is for 64-bit systems: on others its packages have a time that ends in the year 2038"
);

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
compile_error!(
    "the GNU C library looks names up with libraries that it loads, which a static program cannot: build with musl"
);

// The unwinder: the standard library refers to it, and a program that aborts on panic never calls it. Linked
// statically, so that no process has to load a library for it.
#[cfg(all(panic = "abort", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_strings_is_read_to_its_end() {
        let array = [
            c"qmqpd".as_ptr(),
            c"".as_ptr(),
            c"-o\xff".as_ptr(),
            std::ptr::null(),
        ];
        // SAFETY: these are strings of the program and a null pointer.
        let read = |from: usize| unsafe { strings(array[from..].as_ptr()) };
        let bytes: Vec<Vec<u8>> = read(0)
            .iter()
            .map(|string| string.as_bytes().to_vec())
            .collect();
        assert_eq!(bytes, [&b"qmqpd"[..], b"", b"-o\xff"]);
        assert!(read(3).is_empty());
    }

    #[test]
    fn a_test_has_the_standard_library_s_arguments() {
        assert_eq!(arguments(), std::env::args_os().collect::<Vec<_>>());
    }
}
