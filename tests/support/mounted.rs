//! Real file systems for a test: a small one that can be full, one that fails, one that is read-only.
//!
//! They need root and a kernel that lets it mount. Where that is missing, the test says so and goes on with what strace
//! can pretend.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Gone when dropped.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// A file system in memory with this much room.
    pub fn small(at: &Path, size: &str) -> Option<Self> {
        Self::mount(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// The files that are there, read-only.
    pub fn read_only(at: &Path) -> Option<Self> {
        let mounted = Self::mount(at, &["--bind", at.to_str().expect("UTF-8")])?;
        run("mount", &["-o", "remount,bind,ro", at.to_str().expect("UTF-8")]).then_some(mounted)
    }

    /// A disk in a file, made if it is not there, that turns read-only at the first error.
    pub fn disk(image: &Path, at: &Path) -> Option<Self> {
        let path = image.to_str().expect("UTF-8");
        if image.exists() {
            // What an administrator does after an error.
            run("e2fsck", &["-fy", path]);
        } else {
            fs::File::create(image).and_then(|file| file.set_len(64 << 20)).expect("made");
            if !run("mkfs.ext4", &["-q", path]) {
                return None;
            }
        }
        Self::mount(at, &["-o", "loop,errors=remount-ro", path])
    }

    fn mount(at: &Path, how: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        let at_text = at.to_str().expect("UTF-8");
        let mounted = run("mount", &[how, &[at_text]].concat());
        if !mounted {
            eprintln!("NOT MOUNTED: this place does not let a test mount {how:?}; strace pretends instead");
        }
        mounted.then(|| Self { at: at.to_owned() })
    }

    /// The disk meets an error now, and is read-only from then on.
    pub fn fail(&self) {
        let found = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at).output().expect("runs");
        let device = String::from_utf8(found.stdout).expect("UTF-8");
        let device = device.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").expect("the kernel knows it");
        let refused = fs::write(self.at.join("probe"), "").expect_err("read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.at.to_str().expect("UTF-8");
        // Whoever still has a file there keeps it until it is closed.
        let _ = run("umount", &[at]) || run("umount", &["--lazy", at]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
