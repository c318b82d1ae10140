//! Log lines with the arguments of `format!`: `log::warning!("{path}: {reason}")`.
//!
//! Each macro has the name of its function in `log`, which tells the meaning of the level.

/// Calls [`info`](super::info()).
macro_rules! log_info {
    ($($text:tt)+) => { $crate::log::info(format_args!($($text)+)) };
}

/// Logs an info line at this verbosity and above. Below it the arguments are not evaluated.
macro_rules! log_debug {
    ($level:expr, $($text:tt)+) => {
        if $crate::log::verbosity() >= $level {
            $crate::log::info(format_args!($($text)+));
        }
    };
}

/// Calls [`warning`](super::warning()).
macro_rules! log_warning {
    ($($text:tt)+) => { $crate::log::warning(format_args!($($text)+)) };
}

/// Calls [`error`](super::error()), and returns its result.
macro_rules! log_error {
    ($($text:tt)+) => { $crate::log::error(format_args!($($text)+)) };
}

/// Calls [`fatal`](super::fatal()).
macro_rules! log_fatal {
    ($($text:tt)+) => { $crate::log::fatal(format_args!($($text)+)) };
}

pub(crate) use {
    log_debug as debug, log_error as error, log_fatal as fatal, log_info as info,
    log_warning as warning,
};
