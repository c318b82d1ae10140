//! How the C library enters the program, and what is linked into it for that.
//!
//! Not by way of the standard library, which before it calls main sees to descriptors 0 to 2 and to SIGPIPE, as
//! `sys::inherit` does, and prepares to say that the stack has overflowed: it reads /proc/self/maps for the stack's end and
//! gives the handler a stack of its own. A process that serves one message spends a tenth of its time there. An overflow
//! still ends the process, at the guard page, without a word. Arguments and environment are the standard library's all
//! the same: on Linux it gets them from the loader.
//!
//! Nothing runs after main, either: what is written to standard output has to end with a line end, or be flushed.

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
        extern "C" fn main() -> std::ffi::c_int {
            $run().into()
        }
    };
}
#[cfg(not(any(test, fuzzing)))]
pub(crate) use entry_point;

// The unwinder, which the standard library refers to and a program that aborts on panic never calls: as a part of the
// program, not as a library that each process would load.
#[cfg(all(panic = "abort", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}
