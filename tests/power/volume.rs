//! File systems on a [`Disk`], and on copies of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::{Cache, Content, Disk};

/// A kind of file system.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// For people.
    pub name: &'static str,
    /// As mount(8) and /proc/filesystems call it.
    kernel: &'static str,
    /// The program that makes one, with its options, and the package that it comes in.
    make: &'static [&'static str],
    package: &'static str,
    /// What has to look at it after a power cut, as at a start of the machine. Status 1 and 2: it has mended something.
    check: Option<&'static [&'static str]>,
    /// In MiB. xfs and btrfs refuse less.
    size: u64,
}

pub const KINDS: [Kind; 4] = [
    Kind {
        name: "ext4",
        kernel: "ext4",
        make: &["mkfs.ext4", "-q", "-F"],
        package: "e2fsprogs",
        check: None,
        size: 64,
    },
    Kind {
        name: "ext4 without journal",
        kernel: "ext4",
        make: &["mkfs.ext4", "-q", "-F", "-O", "^has_journal"],
        package: "e2fsprogs",
        // Without a journal nothing sees to it that a block and its checksum are written together.
        check: Some(&["e2fsck", "-f", "-y"]),
        size: 64,
    },
    Kind {
        name: "xfs",
        kernel: "xfs",
        make: &["mkfs.xfs", "-q", "-f"],
        package: "xfsprogs",
        check: None,
        size: 300,
    },
    Kind {
        name: "btrfs",
        kernel: "btrfs",
        make: &["mkfs.btrfs", "-q", "-f"],
        package: "btrfs-progs",
        check: None,
        size: 128,
    },
];

/// What a machine does not have for a kind of file system.
pub enum Missing {
    Package(String),
    /// No package brings it.
    Kernel(String),
}

impl Kind {
    pub fn missing(self) -> Option<Missing> {
        let (program, kernel) = (self.make[0], self.kernel);
        if super::harness::launchers::program(program).is_none() {
            let package = self.package;
            return Some(Missing::Package(format!(
                "no {program} ({package} is not installed)"
            )));
        }
        // Where it is a module, it may not be loaded yet.
        let mut load = Command::new("modprobe");
        drop(load.args(["-q", kernel]).stderr(Stdio::null()).status());
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        let known = known.lines().any(|line| line.trim() == kernel);
        (!known).then(|| Missing::Kernel(format!("the kernel has no {kernel}")))
    }

    fn bytes(self) -> u64 {
        self.size << 20
    }
}

/// A mounted file system on a disk that can be copied.
pub struct Volume {
    kind: Kind,
    directory: PathBuf,
    pub disk: Disk,
}

/// Runs a command that must succeed.
pub fn run(words: &[&str], paths: &[&Path]) {
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).args(paths).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Volume {
    /// Makes a file system and mounts it as `mnt` in `directory`.
    pub fn mount(kind: Kind, directory: &Path) -> Volume {
        let image = directory.join("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(kind.bytes()).unwrap();
        run(kind.make, &[&image]);
        let content = Content::of_image(&image);
        // From here on a name for the disk to appear under.
        let disk = Disk::attach(content, kind.bytes(), &image);
        let mount = ["mount", "-t", kind.kernel, "-o", "loop"];
        run(&mount, &[&image, &directory.join("mnt")]);
        Volume {
            kind,
            directory: directory.to_path_buf(),
            disk,
        }
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.directory.join("mnt")
    }

    /// Has everything on the disk that is in the file system.
    pub fn sync(&self) {
        run(&["sync", "-f"], &[&self.root()]);
    }

    /// Unmounts it. Only then can copies of it be mounted: two file systems of one identity at a time are an error.
    pub fn unmount(self) -> Copies {
        run(&["umount"], &[&self.root()]);
        let image = self.directory.join("image");
        // The loop device lets go of the file a moment later.
        let gone = || {
            let mut umount = Command::new("umount");
            let status = umount.arg(&image).stderr(Stdio::null()).status();
            status.unwrap().success()
        };
        let limit = std::time::Duration::from_secs(30);
        assert!(super::harness::master::until(limit, gone), "umount");
        self.disk.detached();
        fs::remove_file(image).unwrap();
        Copies {
            kind: self.kind,
            directory: self.directory,
        }
    }
}

/// Where copies of a disk are looked at.
pub struct Copies {
    kind: Kind,
    directory: PathBuf,
}

impl Copies {
    /// Mounts what a power cut has left of `content`, and has `look` look at it there.
    pub fn look<T>(&self, content: &Content, cache: Cache, look: impl FnOnce(&Path) -> T) -> T {
        let (image, root) = (self.directory.join("copy"), self.directory.join("mnt"));
        content.write_image(&image, self.kind.bytes(), cache);
        if let Some(words) = self.kind.check {
            let mut check = Command::new(words[0]);
            let output = check.args(&words[1..]).arg(&image).output().unwrap();
            assert!(matches!(output.status.code(), Some(0..=2)), "{output:?}");
        }
        run(
            &["mount", "-t", self.kind.kernel, "-o", "loop"],
            &[&image, &root],
        );
        let found = look(&root);
        run(&["umount"], &[&root]);
        fs::remove_file(image).unwrap();
        found
    }
}
