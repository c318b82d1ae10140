//! Opens a file that main.cf or the machine names.
//!
//! Follows open(2). The format of the file is the caller's.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::makedev;

/// /dev/null by its device numbers on Linux: the only device that counts as an empty file.
const NULL: (u64, u64) = (1, 3);

const NOT_REGULAR: &str = "not a regular file";

/// Opens a file for reading. A directory can be opened; reading it gives the error.
///
/// Unlike Postfix, which waits for a writer of a pipe, and reads a device without end: only a regular file and
/// /dev/null are opened (`tests/spec/differences.md`, 45).
pub fn open_file(path: impl AsRef<Path>) -> io::Result<File> {
    open_with_metadata(path).map(|(file, _)| file)
}

/// The same, with what is known of the file by then.
pub(super) fn open_with_metadata(path: impl AsRef<Path>) -> io::Result<(File, Metadata)> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let file = match opened {
        // A socket cannot be opened.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            return Err(io::Error::other(NOT_REGULAR));
        }
        result => result?,
    };
    let found = file.metadata()?;
    let kind = found.file_type();
    let (major, minor) = NULL;
    let is_null = kind.is_char_device() && found.rdev() == makedev(major, minor);
    if kind.is_file() || kind.is_dir() || is_null {
        Ok((file, found))
    } else {
        Err(io::Error::other(NOT_REGULAR))
    }
}

/// All of a file.
pub fn read_file(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_what_has_an_end_is_opened() {
        let dir = std::env::temp_dir().join(format!("qmqpd-open-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (fifo, socket, file) = (dir.join("fifo"), dir.join("socket"), dir.join("file"));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        std::fs::write(&file, "text").unwrap();
        for path in [&*fifo, &*socket, Path::new("/dev/zero")] {
            let error = open_file(path).unwrap_err();
            assert_eq!(error.to_string(), NOT_REGULAR, "{}", path.display());
        }
        assert_eq!(read_file(&file).unwrap(), b"text");
        assert_eq!(read_file("/dev/null").unwrap(), b"");
        assert_eq!(
            read_file(&dir).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            open_file(dir.join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
