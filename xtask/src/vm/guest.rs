//! A script run inside the guest: what other tasks (`interop`) use of this module.
//!
//! The guest sees the host's whole root, read through 9p, under a layer of its own memory: every program, library and
//! test binary of the host is there at the same path, and nothing the guest writes reaches the host except
//! below `$IBEX_SHARE`. Scripts are POSIX sh, start in the repository's root and have the functions of
//! `tests/vm/lib.sh`. Owns the run's folder `target/vm/run/<pid>-<n>`, removed at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::initramfs;
use super::kernel::{Kernel, Series};
use super::qemu::Machine;
use crate::util;

/// What the harness itself needs of Debian, on the host; the guest sees the host's files.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "iproute2",
    "libibverbs1",
    "ibverbs-providers",
    "librdmacm1",
    "ibverbs-utils",
];

/// A kernel and how to run scripts on it.
pub(crate) struct Guest {
    kernel: Kernel,
    limit: Duration,
    echo: bool,
    echo_errors: bool,
    keep: bool,
}

/// What a script left.
pub(crate) struct GuestOutput {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its standard output, without anything of the harness.
    pub(crate) stdout: String,
    /// Its standard error, after QEMU's own messages if any.
    pub(crate) stderr: String,
    /// From the start of QEMU to the start of the script.
    pub(crate) ready: Duration,
    /// From the start of QEMU to its end.
    pub(crate) total: Duration,
}

impl Guest {
    /// Installs what is missing, gets the kernel. Without network after the first time.
    ///
    /// # Errors
    /// If a package is missing and cannot be installed, or the kernel cannot be had.
    pub(crate) fn prepare(series: Series) -> Result<Guest> {
        util::apt(PACKAGES)?;
        let kernel = Kernel::prepare(series)?;
        Ok(Guest { kernel, limit: Duration::from_secs(600), echo: true, echo_errors: true, keep: false })
    }

    /// Wall clock for boot and script together; 10 minutes unless told. The machine is killed when it passes.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whether the script's output is passed on while it runs (it is, unless told).
    pub(crate) fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self.echo_errors = echo;
        self
    }

    /// Whether the script's standard error is passed on, whatever [`echo`](Self::echo) said of it.
    pub(crate) fn echo_errors(mut self, echo: bool) -> Self {
        self.echo_errors = echo;
        self
    }

    /// Whether output is passed on.
    pub(crate) fn echoes(&self) -> bool {
        self.echo
    }

    /// Keeps the run's folder: the script, the kernel's messages, `$IBEX_SHARE`.
    pub(crate) fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// The kernel it runs.
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Boots, runs `script`, switches off. An exit code other than 0 is not an error here.
    ///
    /// # Errors
    /// If the machine cannot be started, does not get as far as the script's end, or passes its limit.
    pub(crate) fn run(&self, script: &str) -> Result<GuestOutput> {
        let folder = RunFolder::create(self.keep)?;
        let share = folder.path.join("share");
        fs::create_dir(&share)?;
        let source = util::root().join("tests/vm");
        fs::copy(source.join("lib.sh"), share.join("lib.sh")).context("cannot read tests/vm/lib.sh")?;
        fs::write(share.join("script.sh"), wrap(&util::root(), script))?;
        let archive = folder.path.join("initramfs.cpio");
        initramfs::write(&self.kernel, &source.join("init.sh"), &archive)?;

        let start = Instant::now();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let machine = Machine {
            image: &self.kernel.image(),
            initramfs: &archive,
            share: &share,
            console: &folder.path.join("console.log"),
            word: &format!("ibex-{}-{}", std::process::id(), since_epoch.as_nanos()),
            limit: self.limit,
            echo: (self.echo, self.echo_errors),
        };
        let outcome =
            machine.run().with_context(|| format!("the machine with {} failed", self.kernel.package))?;
        Ok(GuestOutput {
            code: outcome.code,
            stdout: String::from_utf8_lossy(&outcome.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&outcome.stderr).into_owned(),
            ready: outcome.ready,
            total: start.elapsed(),
        })
    }
}

/// The script as the guest runs it: from the repository's root, with the functions of lib.sh.
fn wrap(root: &Path, script: &str) -> String {
    format!("cd {} || exit 125\n. /run/ibex/lib.sh\n{script}\n", quote(&root.to_string_lossy()))
}

/// A word of POSIX sh with exactly this value.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The folder of one run. It is live as long as the lock beside it is held.
struct RunFolder {
    path: PathBuf,
    lock: PathBuf,
    keep: bool,
    _held: fs::File,
}

impl RunFolder {
    fn create(keep: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = util::target_dir().join("vm/run");
        fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
        ensure!(base.is_absolute(), "CARGO_TARGET_DIR must be an absolute path: QEMU starts elsewhere");
        sweep(&base);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = base.join(&name);
        let lock = base.join(format!("{name}.lock"));
        let held = fs::File::create(&lock)?;
        held.lock().context("cannot lock the run's folder")?;
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(RunFolder { path, lock, keep, _held: held })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("vm: kept {}", self.path.display());
        } else {
            // What is left is swept by the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes the folders of runs that were killed: their locks are still there and held by nobody.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for lock in entries.flatten().map(|entry| entry.path()) {
        if lock.extension().is_some_and(|extension| extension == "lock")
            && fs::File::open(&lock).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_dir_all(lock.with_extension(""));
            let _ = fs::remove_file(&lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_scripts_are_well_formed() {
        for name in ["init.sh", "lib.sh", "golden.sh", "cm_golden.sh", "bench.sh"] {
            let path = util::root().join("tests/vm").join(name);
            let status = std::process::Command::new("sh").arg("-n").arg(&path).status();
            assert!(status.unwrap().success(), "{}", path.display());
        }
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("it's"), r"'it'\''s'");
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quote("a 'b' $c")))
            .output();
        assert_eq!(output.unwrap().stdout, b"a 'b' $c");
    }
}
