//! Whether a set-id process may use the configuration directory that the environment names.
//!
//! The caller of a set-id program chooses the environment, so that a directory other than the default must be listed in
//! the default main.cf. A qmqpd that a launcher started, as any user, is not set-id and may use any directory. Follows
//! `tests/spec/main-cf.md`, section 1.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{getegid, geteuid, getgid, getuid};

use super::error::Error;
use super::file::read_file;
use super::lines::{items, logical_lines};
use super::main_cf;
use super::{DEFAULT_DIRECTORY, main_cf_in};
use crate::log::error_text;
use crate::sys::inherit::has_foreign_rights;

/// The parameters of the default main.cf that list other directories.
const LISTS: [&[u8]; 2] = [
    b"alternate_config_directories",
    b"multi_instance_directories",
];

/// Refuses a `directory` that the process must not use.
pub(super) fn check(directory: &Path) -> Result<(), Error> {
    let default = Path::new(DEFAULT_DIRECTORY);
    if directory.as_os_str() == default.as_os_str() || !has_foreign_rights() || !is_set_id() {
        return Ok(());
    }
    listed(directory, &main_cf_in(default))
}

fn is_set_id() -> bool {
    let (uid, euid) = (getuid(), geteuid());
    !(uid.is_root() && euid.is_root()) && (uid != euid || getgid() != getegid())
}

/// Looks `directory` up, as it is spelled, in the file `main_cf`. Malformed lines list nothing.
fn listed(directory: &Path, main_cf: &Path) -> Result<(), Error> {
    let path = main_cf.to_string_lossy().into_owned();
    let bytes = read_file(main_cf)
        .map_err(|error| Error::new(format!("open file {path}: {}", error_text(&error))))?;
    let wanted = directory.as_os_str().as_bytes();
    let listed = logical_lines(&bytes).any(|line| {
        main_cf::split(&line.text).is_ok_and(|(name, value)| {
            LISTS.contains(&name) && items(value).any(|item| item == wanted)
        })
    });
    if listed {
        return Ok(());
    }
    let directory = directory.to_string_lossy();
    let text = format!(
        "specify \"alternate_config_directories = {directory}\" or \
         \"multi_instance_directories = {directory}\" in {path}"
    );
    Err(Error::new(text).after_error(format!(
        "unauthorized configuration directory name: {directory}"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory_with;
    use super::*;

    fn verdict(main_cf: &str, directory: &str) -> Result<(), Error> {
        let default = directory_with(main_cf);
        listed(Path::new(directory), &default.main_cf())
    }

    #[test]
    fn every_line_of_either_list_counts_and_nothing_is_expanded() {
        let main_cf = "alternate_config_directories = /a, /b\nalternate_config_directories = $x\nbad line\n\
            multi_instance_directories = /c\n";
        for directory in ["/a", "/b", "/c", "$x"] {
            assert_eq!(verdict(main_cf, directory), Ok(()), "{directory}");
        }
    }

    #[test]
    fn another_directory_is_refused_with_an_error_and_an_advice() {
        let default = directory_with("multi_instance_directories = /a\n");
        let path = default.main_cf();
        let refused = listed(Path::new("/a/"), &path).unwrap_err();
        assert_eq!(
            refused.preceding_error(),
            Some("unauthorized configuration directory name: /a/")
        );
        assert_eq!(
            refused.to_string(),
            format!(
                "specify \"alternate_config_directories = /a/\" or \"multi_instance_directories = /a/\" in {}",
                path.display()
            )
        );
    }

    #[test]
    fn a_default_file_that_is_missing_is_said_to_be() {
        let refused = listed(Path::new("/a"), Path::new("/nonexistent/main.cf")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "open file /nonexistent/main.cf: No such file or directory"
        );
    }
}
