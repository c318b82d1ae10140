//! Whether main.cf is still the file that was read, for a process that serves many clients.
//!
//! The directory is kept open, because a chroot would hide the file. Follows stat(2).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstatat;

use super::Config;
use super::main_cf::Stamp;

/// The file in its directory.
#[derive(Debug)]
pub struct Watch {
    directory: File,
    read: Option<Stamp>,
}

impl Config {
    /// Watches the file that this was read from. With the rights and the root directory of the start.
    pub fn watch(&self) -> io::Result<Watch> {
        let mut path = self.directory.clone().into_os_string();
        // An empty directory means /main.cf.
        path.push("/");
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_PATH.bits() | OFlag::O_DIRECTORY.bits())
            .open(Path::new(&path))?;
        let read = self.stamp;
        Ok(Watch { directory, read })
    }
}

impl Watch {
    /// Whether a start would find another file now. An error if this process cannot see it: behind a symbolic link out
    /// of the root directory, or in a directory that its user may not enter.
    pub fn has_changed(&self) -> nix::Result<bool> {
        let now = fstatat(&self.directory, "main.cf", AtFlags::empty())?;
        Ok(self.read != Some(Stamp::of_status(&now)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::directory_with;
    use super::*;

    #[test]
    fn a_file_that_was_written_to_touched_or_replaced_has_changed() {
        let directory = directory_with("qmqpd_timeout = 1s\n");
        let file = directory.path().join("main.cf");
        let load = || directory.load(&[]).unwrap();
        let changes: [(&str, &dyn Fn()); 4] = [
            ("written to", &|| {
                fs::write(&file, "qmqpd_timeout = 2s\n").unwrap()
            }),
            ("touched", &|| {
                let opened = OpenOptions::new().append(true).open(&file).unwrap();
                opened.set_modified(std::time::SystemTime::now()).unwrap();
            }),
            ("replaced", &|| {
                let new = file.with_extension("new");
                fs::copy(&file, &new).unwrap();
                fs::rename(new, &file).unwrap();
            }),
            ("replaced by an older one", &|| {
                let old = file.with_extension("old");
                fs::copy(&file, &old).unwrap();
                let opened = OpenOptions::new().append(true).open(&old).unwrap();
                opened
                    .set_modified(std::time::SystemTime::UNIX_EPOCH)
                    .unwrap();
                fs::rename(old, &file).unwrap();
            }),
        ];
        for (what, change) in changes {
            let watch = load().watch().unwrap();
            assert_eq!(watch.has_changed(), Ok(false), "{what}");
            change();
            assert_eq!(watch.has_changed(), Ok(true), "{what}");
        }
        let watch = load().watch().unwrap();
        fs::remove_file(&file).unwrap();
        assert!(watch.has_changed().is_err());
    }
}
