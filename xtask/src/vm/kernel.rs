//! Debian's stock kernels: which package, its download without installing it, and the modules the guest needs.
//!
//! Owns the cache `target/vm/<series>/`: `vmlinuz`, `modules/NN-name.ko` in load order, and a `stamp` that says what
//! they were made from. With a matching stamp nothing is downloaded and no network is needed; delete the folder to
//! take up a newer kernel of the same series. Booting it is [`super::qemu`]'s work.
//!
//! Facts from modprobe(8), depmod(8) and modules.dep(5): a line `a.ko: b.ko c.ko` wants `c` loaded before `b` before
//! `a`; a module named in `modules.builtin` needs no loading.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::util;

/// A kernel series with RDMA modules in Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Debian 12's own kernel.
    V6_1,
    /// Debian 13's own kernel, a backport in Debian 12.
    V6_12,
}

impl Series {
    /// Every series the suite runs on, oldest first.
    pub(crate) const ALL: [Series; 2] = [Series::V6_1, Series::V6_12];

    /// The number as users write it, for example `6.1`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Series::V6_1 => "6.1",
            Series::V6_12 => "6.12",
        }
    }

    /// Packages that depend on the newest kernel of this series, in one Debian release or another.
    fn metapackages(self) -> &'static [&'static str] {
        match self {
            Series::V6_1 => &["linux-image-amd64"],
            Series::V6_12 => &["linux-image-6.12-amd64", "linux-image-amd64"],
        }
    }
}

/// What the guest loads at boot, in this order where a dependency does not ask for another: the virtio devices and
/// the file systems of the harness, interfaces and packet loss, then the RDMA stack. `crc32_generic` comes before
/// `rdma_rxe`, which otherwise refuses to add a device.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "dummy",
    "veth",
    "sch_netem",
    "crc32_generic",
    "rdma_rxe",
    "rdma_ucm",
];

/// Changes when the layout of the cache does.
const LAYOUT: u32 = 1;

/// A kernel ready to boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its series.
    pub(crate) series: Series,
    /// The Debian package it came from, with its version.
    pub(crate) package: String,
    folder: PathBuf,
}

impl Kernel {
    /// The kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The uncompressed modules; sorted by name they are in load order.
    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// Finds the kernel in the cache, or downloads and unpacks it.
    ///
    /// # Errors
    /// If apt does not know a kernel of this series, or the package lacks an image or a module.
    pub(crate) fn prepare(series: Series) -> Result<Kernel> {
        let base = util::target_dir().join("vm");
        fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
        let folder = base.join(series.name());
        // Two runs at once must not unpack into the same place; the lock ends with this function.
        let lock = fs::File::create(base.join(format!("{}.lock", series.name())))?;
        lock.lock().context("cannot lock the cache of kernels")?;
        if let Some(package) = cached_package(&folder) {
            return Ok(Kernel { series, package, folder });
        }
        util::apt(&["kmod", "xz-utils"])?;
        let work = base.join(format!("{}.new", series.name()));
        remove_if_there(&work)?;
        fs::create_dir_all(&work)?;
        let package = unpack(series, &work)?;
        remove_if_there(&folder)?;
        fs::rename(&work, &folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Kernel { series, package, folder })
    }
}

/// The package a valid cache holds.
fn cached_package(folder: &Path) -> Option<String> {
    let stamp = fs::read_to_string(folder.join("stamp")).ok()?;
    let (package, rest) = stamp.split_once('\n')?;
    (rest == stamp_tail()).then(|| package.to_owned())
}

/// The part of the stamp that says what this program expects in the cache.
fn stamp_tail() -> String {
    format!("layout {LAYOUT}\n{}\n", MODULES.join("\n"))
}

/// Downloads the package of `series` and fills `work` with image, modules and stamp.
fn unpack(series: Series, work: &Path) -> Result<String> {
    let name = package_name(series)?;
    eprintln!("vm: downloading {name}");
    let download = work.join("download");
    fs::create_dir(&download)?;
    // The sandbox user of apt cannot write here; nothing is installed.
    let get = || {
        util::run(apt_get().args(["-o", "APT::Sandbox::User=root", "download", &name]).current_dir(&download))
    };
    // A list older than the mirror names a version that is gone: look once more.
    get().or_else(|_| util::run(apt_get().arg("update")).and_then(|()| get())).with_context(|| {
        format!("cannot download {name}; as root: apt-get update; then repeat with the network up")
    })?;
    let deb = only_entry(&download)?;
    let tree = work.join("tree");
    util::run(util::cmd("dpkg").arg("-x").args([&deb, &tree]))?;

    let release = only_entry(&tree.join("lib/modules"))?;
    let release_name = file_name(&release);
    fs::rename(tree.join(format!("boot/vmlinuz-{release_name}")), work.join("vmlinuz"))
        .with_context(|| format!("{name} has no kernel image"))?;
    util::run(util::cmd("depmod").arg("-b").arg(&tree).arg(&release_name))?;
    let order = load_order(
        &fs::read_to_string(release.join("modules.dep"))?,
        &fs::read_to_string(release.join("modules.builtin"))?,
        MODULES,
    )
    .with_context(|| format!("{name} cannot run the suite"))?;

    let modules = work.join("modules");
    fs::create_dir(&modules)?;
    for (number, path) in order.iter().enumerate() {
        let target = modules.join(format!("{number:02}-{}.ko", module_name(path)));
        decompress(&release.join(path), &target)?;
    }
    let version = file_name(&deb).trim_end_matches(".deb").to_owned();
    fs::remove_dir_all(&tree)?;
    fs::remove_dir_all(&download)?;
    fs::write(work.join("stamp"), format!("{version}\n{}", stamp_tail()))?;
    Ok(version)
}

/// apt-get that reports to standard error: standard output is the script's.
fn apt_get() -> Command {
    let mut command = util::cmd("apt-get");
    command.arg("-q").stdout(std::io::stderr());
    command
}

/// The exact name of the kernel package, from the metapackage that depends on it.
fn package_name(series: Series) -> Result<String> {
    let look = || {
        series.metapackages().iter().find_map(|meta| {
            let output = util::cmd("apt-cache").args(["depends", meta]).output().ok()?;
            dependency(&String::from_utf8_lossy(&output.stdout), series)
        })
    };
    if let Some(name) = look() {
        return Ok(name);
    }
    // A fresh container has no package lists at all.
    util::run(apt_get().arg("update")).context("cannot read the package lists; as root: apt-get update")?;
    look().with_context(|| {
        format!(
            "apt knows no kernel {} (looked at {}); this task needs Debian 12 or newer with its security archive",
            series.name(),
            series.metapackages().join(", ")
        )
    })
}

/// The kernel of this series among the lines of `apt-cache depends`.
fn dependency(depends: &str, series: Series) -> Option<String> {
    let prefix = format!("linux-image-{}.", series.name());
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&prefix))
        .map(str::to_owned)
}

/// The module files to load for `wanted`, each after what it depends on, none twice. Paths as in modules.dep.
fn load_order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let mut lines = BTreeMap::new();
    for line in dep.lines() {
        if let Some((path, needs)) = line.split_once(':') {
            lines.insert(module_name(path), (path, needs));
        }
    }
    let builtin: Vec<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let Some((path, needs)) = lines.get(*name) else {
            if builtin.iter().any(|built| built == name) {
                continue;
            }
            bail!("it has no module {name}");
        };
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !order.iter().any(|have| have == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// `kernel/fs/9p/9p.ko.xz` is the module `9p`; names use `_` where files may use `-`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Copies a module, uncompressed.
fn decompress(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|extension| extension == "xz") {
        util::run(util::cmd("xz").arg("-dc").arg(from).stdout(fs::File::create(to)?))
    } else {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }
}

/// The one entry of a folder that must have exactly one.
fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    match (entries.pop(), entries.pop()) {
        (Some(entry), None) => Ok(entry.path()),
        _ => bail!("{} should have exactly one entry", folder.display()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependency_of_the_right_series_is_found() {
        let depends = "linux-image-6.12-amd64\n  Depends: linux-image-6.12.117+deb12-amd64\n";
        assert_eq!(dependency(depends, Series::V6_12).as_deref(), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(dependency(depends, Series::V6_1), None);
    }

    #[test]
    fn modules_are_ordered_after_their_dependencies() {
        let dep = "kernel/a/rdma_rxe.ko.xz: kernel/b/ib-core.ko.xz kernel/c/udp_tunnel.ko.xz\n\
                   kernel/b/ib-core.ko.xz:\nkernel/c/udp_tunnel.ko.xz:\nkernel/d/veth.ko.xz: kernel/b/ib-core.ko.xz\n";
        let order = load_order(dep, "kernel/x/virtio_pci.ko\n", &["virtio_pci", "veth", "rdma_rxe"]).unwrap();
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["ib_core", "veth", "udp_tunnel", "rdma_rxe"]);
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = load_order("", "", &["rdma_rxe"]).unwrap_err();
        assert!(error.to_string().contains("rdma_rxe"), "{error}");
    }
}
