//! The guest's initial file system: busybox, the first process and the kernel's modules, as an uncompressed cpio archive.
//!
//! Owns the archive format ("newc", kernel documentation `early-userspace/buffer-format`). The archive is written
//! for every run: that takes milliseconds, and nothing in it can be out of date.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::kernel::Kernel;

/// The statically linked busybox of Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

const EXECUTABLE: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const FOLDER: u32 = 0o040_755;

/// Writes the archive for `kernel` with `init` as first process.
///
/// # Errors
/// If busybox, a module or the target cannot be read or written.
pub(crate) fn write(kernel: &Kernel, init: &Path, target: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.add("bin", FOLDER, &[]);
    archive.add("bin/busybox", EXECUTABLE, &read(Path::new(BUSYBOX))?);
    archive.add("init", EXECUTABLE, &read(init)?);
    archive.add("modules", FOLDER, &[]);
    let mut modules = fs::read_dir(kernel.modules())?.collect::<std::io::Result<Vec<_>>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    for module in modules {
        let name = format!("modules/{}", module.file_name().to_string_lossy());
        archive.add(&name, PLAIN, &read(&module.path())?);
    }
    fs::write(target, archive.finish()).with_context(|| format!("cannot write {}", target.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive under construction.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Appends one entry. Parents must have been added before.
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(data.len()).expect("an initramfs holds no file of 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), size of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Headers and file contents start at multiples of 4.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_the_layout_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.add("init", EXECUTABLE, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000081ed"), "{text}");
        assert_eq!(&bytes[110..115], b"init\0");
        // 110 bytes of header and 5 of name end at 115, so the data begins at 116.
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.contains("TRAILER!!!"));
    }
}
