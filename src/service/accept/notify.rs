//! Tells systemd that the process has started (`Type=notify`).
//!
//! One datagram, to the socket that the environment names. Authority: sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::log;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The socket that the environment names, if any. Made before a chroot, which would hide it.
#[derive(Debug)]
pub struct Notify(Option<UnixDatagram>);

impl Notify {
    pub fn connect() -> Notify {
        let socket = std::env::var_os(NOTIFY_SOCKET).and_then(|name| {
            let connected = connect(&name);
            connected
                .inspect_err(|error| {
                    log::warning!("{NOTIFY_SOCKET}: {}", log::error_text(error));
                })
                .ok()
        });
        Notify(socket)
    }

    /// Tells systemd that the process is ready. systemd waits for it, and ends the process if it never comes.
    pub fn ready(self) {
        if let Some(Err(error)) = self.0.map(|socket| socket.send(b"READY=1")) {
            log::warning!("{NOTIFY_SOCKET}: {}", log::error_text(&error));
        }
    }
}

/// A name that begins with `@` is not in the file system.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_or_abstract() {
        let id = std::process::id();
        let abstract_name = format!("@qmqpd-notify-{id}");
        let path = std::env::temp_dir().join(format!("qmqpd-notify-{id}"));
        let path = path.to_str().unwrap().to_owned();
        let bound = [
            SocketAddr::from_abstract_name(&abstract_name[1..]).unwrap(),
            SocketAddr::from_pathname(&path).unwrap(),
        ]
        .map(|address| UnixDatagram::bind_addr(&address).unwrap());
        for (name, socket) in [abstract_name, path.clone()].iter().zip(bound) {
            Notify(Some(connect(OsStr::new(name)).unwrap())).ready();
            let mut heard = [0; 100];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1", "{name}");
        }
        std::fs::remove_file(path).unwrap();
        connect(OsStr::new("/nowhere")).unwrap_err();
    }
}
