//! `cargo xtask copy-test`: `ibex serve` and `ibex cp` between two processes, with many files and a killed server.
//!
//! Owns the sample tree and the judgement: what arrives is compared with what was sent by content, permission bits,
//! modification time and links, without any code of the command itself. The command is run as a user runs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::util;

/// How long one copy may take before it counts as hung.
const COPY_TIME: Duration = Duration::from_secs(300);
/// How soon a client must notice that its server was killed.
const NOTICE_TIME: Duration = Duration::from_secs(10);

/// Bytes that are written and compared at a time.
const BLOCK: usize = 1 << 20;

/// Size of the sample.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of files.
    #[arg(long, default_value_t = 2000)]
    files: u64,
    /// Their sizes together, in GiB.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// Keep the directories under target/copy-test.
    #[arg(long)]
    keep: bool,
}

/// Runs all cases and fails if one failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.files >= 20, "--files {}: the sample needs at least 20 files", args.files);
    util::run(util::cmd("cargo").args(["build", "--release", "--quiet", "--package", "ibex-cli"]))?;
    let ibex = util::target_dir().join("release/ibex");
    let top = util::root().join(util::target_dir()).join("copy-test");
    if top.exists() {
        remove(&top)?;
    }
    fs::create_dir_all(&top)?;
    let source = top.join("source");
    let bytes = (args.gib * f64::from(1 << 30)) as u64;
    let begin = Instant::now();
    make_sample(&source, args.files, bytes)?;
    let expected = snapshot(&source)?;
    println!("sample of {} files, {bytes} bytes in {:.1?}", args.files, begin.elapsed());

    let bench = Bench { ibex, top, source, expected };
    let cases: [(&str, Case); 6] = [
        ("download arrives identical", Bench::download),
        ("upload arrives identical", Bench::upload),
        ("a second copy moves nothing", Bench::again),
        ("killed server, download resumes", Bench::killed_download),
        ("killed server, upload resumes", Bench::killed_upload),
        ("path escapes are refused", Bench::escapes),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
        let begin = Instant::now();
        match case(&bench) {
            Ok(remark) => {
                passed += 1;
                println!("ok     {name}: {remark} ({:.1?})", begin.elapsed());
            }
            Err(error) => {
                failed += 1;
                println!("FAILED {name}: {error:#}");
            }
        }
    }
    println!("copy-test: {passed} passed, {failed} failed");
    if !args.keep {
        remove(&bench.top)?;
    }
    ensure!(failed == 0, "{failed} cases of copy-test failed");
    Ok(())
}

/// One case; what it returns is printed beside its name.
type Case = fn(&Bench) -> Result<String>;

/// The command, the sample and where to work.
struct Bench {
    ibex: PathBuf,
    top: PathBuf,
    source: PathBuf,
    expected: BTreeMap<PathBuf, String>,
}

/// A running `ibex serve`; ended when dropped.
struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(ibex: &Path, dir: &Path) -> Result<Self> {
        let mut child = Command::new(ibex)
            .arg("serve")
            .arg(dir)
            .args(["--listen", "127.0.0.1:0", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start ibex serve")?;
        let mut line = String::new();
        let out = child.stdout.take().context("ibex serve has no output")?;
        let mut out = BufReader::new(out);
        let read = out.read_line(&mut line);
        // Keep reading: a server must not be stopped by a full pipe.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let port = read.ok().and_then(|_| {
            let first: serde_json::Value = serde_json::from_str(&line).ok()?;
            first["listening"].as_str()?.rsplit(':').next().map(str::to_owned)
        });
        let mut server = Self { child, port: String::new() };
        server.port = port.with_context(|| format!("ibex serve said {line:?} instead of its address"))?;
        Ok(server)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Bench {
    /// A client, started.
    fn client(&self, server: &Server, src: &str, dst: &str) -> Result<Child> {
        Command::new(&self.ibex)
            .args(["cp", "--json", "--port", &server.port, src, dst])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ibex cp")
    }

    /// A copy that must succeed; its JSON outcome.
    fn copy(&self, server: &Server, src: &str, dst: &str) -> Result<serde_json::Value> {
        let output = finish(self.client(server, src, dst)?, COPY_TIME)?;
        ensure!(output.status.success(), "ibex cp ended with {}: {}", output.status, text(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the outcome is no JSON: {}", text(&output.stdout)))
    }

    /// Every entry of the sample is there, the same, and nothing else is.
    fn compare(&self, copy: &Path) -> Result<()> {
        let found = snapshot(copy)?;
        for (path, what) in &self.expected {
            match found.get(path) {
                None => bail!("{} is missing", path.display()),
                Some(other) if other != what => bail!("{}: {other} instead of {what}", path.display()),
                Some(_) => self.same_contents(copy, path)?,
            }
        }
        match found.keys().find(|path| !self.expected.contains_key(*path)) {
            Some(path) => bail!("{} should not be there", path.display()),
            None => Ok(()),
        }
    }

    fn same_contents(&self, copy: &Path, path: &Path) -> Result<()> {
        let (ours, theirs) = (self.source.join(path), copy.join(path));
        if !fs::symlink_metadata(&ours)?.is_file() {
            return Ok(());
        }
        let (mut ours, mut theirs) = (File::open(ours)?, File::open(theirs)?);
        let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
        loop {
            let count = read_block(&mut ours, &mut left)?;
            let other = read_block(&mut theirs, &mut right)?;
            ensure!(left[..count] == right[..other], "{}: the contents differ", path.display());
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn download(&self) -> Result<String> {
        let server = Server::start(&self.ibex, &self.source)?;
        let to = self.top.join("downloaded");
        let outcome = self.copy(&server, "127.0.0.1:", utf8(&to)?)?;
        self.compare(&to)?;
        speed(&outcome)
    }

    fn upload(&self) -> Result<String> {
        let stock = self.fresh("uploads")?;
        let server = Server::start(&self.ibex, &stock)?;
        let outcome = self.copy(&server, utf8(&self.source)?, "127.0.0.1:up")?;
        self.compare(&stock.join("up"))?;
        speed(&outcome)
    }

    fn again(&self) -> Result<String> {
        let server = Server::start(&self.ibex, &self.source)?;
        let to = self.top.join("downloaded");
        let outcome = self.copy(&server, "127.0.0.1:", utf8(&to)?)?;
        ensure!(outcome["bytes_copied"] == 0, "{} bytes were copied again", outcome["bytes_copied"]);
        self.compare(&to)?;
        Ok(format!("{} files unchanged", outcome["files_unchanged"]))
    }

    fn killed_download(&self) -> Result<String> {
        let to = self.top.join("killed-down");
        self.killed(&self.source, "127.0.0.1:.", utf8(&to)?, &to)
    }

    fn killed_upload(&self) -> Result<String> {
        let stock = self.fresh("killed-stock")?;
        self.killed(&stock, utf8(&self.source)?, "127.0.0.1:up", &stock.join("up"))
    }

    /// Kills the server when about a third has arrived, then runs the same copy again.
    fn killed(&self, served: &Path, src: &str, dst: &str, to: &Path) -> Result<String> {
        let mut server = Server::start(&self.ibex, served)?;
        let client = self.client(&server, src, dst)?;
        let third = self.expected.len() / 3;
        let begin = Instant::now();
        while count(to) < third {
            ensure!(begin.elapsed() < COPY_TIME, "a third of the files did not arrive in time");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.kill()?;
        let killed = Instant::now();
        let output = finish(client, NOTICE_TIME)?;
        let noticed = killed.elapsed();
        let said = text(&output.stderr);
        ensure!(
            output.status.code() == Some(1),
            "the client ended with {} after the kill: {said}",
            output.status
        );
        ensure!(said.contains("lost the peer") && said.contains("again"), "no clear error, but: {said}");
        let whole = self.no_broken_file(to)?;

        let server = Server::start(&self.ibex, served)?;
        let outcome = self.copy(&server, src, dst)?;
        let skipped = outcome["bytes_skipped"].as_u64().context("the outcome lacks bytes_skipped")?;
        ensure!(skipped > 0, "the second run began anew");
        self.compare(to)?;
        Ok(format!("noticed after {noticed:.1?}, {whole} files were whole, {skipped} bytes not sent again"))
    }

    /// After a kill: whatever is in a file's place is the whole file. The number of those.
    fn no_broken_file(&self, to: &Path) -> Result<usize> {
        let mut whole = 0;
        for (path, what) in snapshot(to)? {
            let is_part = path.file_name().is_some_and(|name| {
                name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".ibex-part")
            });
            // Directories get their modes and times at the end.
            if is_part || what.starts_with("dir") {
                continue;
            }
            let expected = self.expected.get(&path).with_context(|| format!("{} is new", path.display()))?;
            ensure!(*expected == what, "{} is {what} instead of {expected}", path.display());
            self.same_contents(to, &path)?;
            whole += 1;
        }
        Ok(whole)
    }

    fn escapes(&self) -> Result<String> {
        let served = self.fresh("escape")?;
        fs::create_dir(served.join("inside"))?;
        fs::write(self.top.join("secret"), b"secret")?;
        symlink("../secret", served.join("leak"))?;
        symlink("/", served.join("slash"))?;
        let server = Server::start(&self.ibex, &served)?;
        let to = self.top.join("stolen");
        let bad = ["../secret", "/etc/passwd", "inside/../../secret", "leak", "slash/etc/passwd"];
        for path in bad {
            let remote = format!("127.0.0.1:{path}");
            let output = finish(self.client(&server, &remote, utf8(&to)?)?, COPY_TIME)?;
            ensure!(output.status.code() == Some(1), "{path}: ended with {}", output.status);
            ensure!(!to.exists(), "{path} was copied");
        }
        for path in ["../planted", "/tmp/planted", "slash/tmp/planted", "inside/../../planted"] {
            let remote = format!("127.0.0.1:{path}");
            let secret = self.top.join("secret");
            let output = finish(self.client(&server, utf8(&secret)?, &remote)?, COPY_TIME)?;
            ensure!(output.status.code() == Some(1), "upload to {path}: ended with {}", output.status);
        }
        ensure!(!self.top.join("planted").exists(), "a file was planted outside");
        Ok(format!("{} paths", bad.len() + 4))
    }

    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.top.join(name);
        fs::create_dir(&dir)?;
        Ok(dir)
    }
}

/// Waits for a child, at most `limit`; a child that takes longer is killed.
fn finish(mut child: Child, limit: Duration) -> Result<Output> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > limit {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!("ibex cp still ran after {limit:?}; it had said: {}", text(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child.wait_with_output()?)
}

/// Files of mixed sizes that add up to `bytes`, in nested directories, with odd names, modes and times.
fn make_sample(top: &Path, files: u64, bytes: u64) -> Result<()> {
    fs::create_dir(top)?;
    let mut random = Random(0x1bec_5eed);
    // Boundaries of blocks, pages and windows first; then small files, and a share of large ones.
    let odd = [0, 0, 1, 2, 511, 512, 4095, 4096, 4097, 65535, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    let mut sizes: Vec<u64> = odd.to_vec();
    while (sizes.len() as u64) < files - 1 {
        sizes.push(if sizes.len().is_multiple_of(4) {
            random.below(2 * bytes / (files / 3))
        } else {
            random.below(40_000)
        });
    }
    let mut sum: u64 = sizes.iter().sum();
    while sum > bytes {
        // Too much: halve the largest until one file can make up the rest.
        let largest = sizes.iter_mut().max().context("no files")?;
        sum -= *largest - *largest / 2;
        *largest /= 2;
    }
    sizes.push(bytes - sum);
    // One block of noise; every piece of every file begins at another place in it.
    let mut noise = vec![0; 2 * BLOCK];
    random.fill(&mut noise);
    for (index, size) in sizes.into_iter().enumerate() {
        let dir = match index % 5 {
            0 => top.to_owned(),
            1 => top.join("flat"),
            2 => top.join(format!("many/{}", index % 97)),
            3 => top.join(format!("deep/{}/er/{}/still", index % 7, index % 3)),
            _ => top.join("with space/and \u{fc}ml\u{e4}ut"),
        };
        fs::create_dir_all(&dir)?;
        let name: std::ffi::OsString = match index % 11 {
            0 => format!("{index} with space").into(),
            1 => format!("-dash{index}").into(),
            2 => format!("new\nline{index}").into(),
            3 => std::ffi::OsStr::from_bytes(&[b"not-utf8-\xff\xfe-", index.to_string().as_bytes()].concat())
                .into(),
            4 => format!(".hidden{index}").into(),
            5 => format!("{index}{}", "x".repeat(240)).into(),
            _ => format!("file{index}.bin").into(),
        };
        let path = dir.join(name);
        let mut file = File::create(&path)?;
        let mut left = size;
        while left > 0 {
            let piece = left.min(BLOCK as u64) as usize;
            let start = random.below(BLOCK as u64) as usize;
            file.write_all(&noise[start..start + piece])?;
            left -= piece as u64;
        }
        let mode = [0o644, 0o600, 0o755, 0o444, 0o640][index % 5];
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000 + index as u64 * 1000, index as u32 * 7))?;
    }
    fs::create_dir_all(top.join("empty/within/empty"))?;
    symlink("flat", top.join("link-to-dir"))?;
    symlink("../flat", top.join("many/up-and-down"))?;
    symlink("nothing-here", top.join("dangling"))?;
    fs::set_permissions(top.join("empty"), PermissionsExt::from_mode(0o700))?;
    File::open(top.join("empty/within"))?.set_modified(UNIX_EPOCH + Duration::from_secs(1_234_567_890))?;
    Ok(())
}

/// A generator whose output has no pattern that a copy could get right by accident (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}

/// Everything below a directory, by relative path: kind, permission bits, time, size.
fn snapshot(top: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(dir) = waiting.pop() {
        for item in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = item?.path();
            let meta = fs::symlink_metadata(&path)?;
            let mode = meta.mode() & 0o7777;
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path)?.display())
            } else if meta.is_dir() {
                waiting.push(path.clone());
                format!("dir {mode:o} {time}")
            } else {
                format!("file {mode:o} {time} {} bytes", meta.len())
            };
            all.insert(path.strip_prefix(top)?.to_owned(), what);
        }
    }
    Ok(all)
}

/// Fills a block as far as the file goes.
fn read_block(file: &mut File, block: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Number of entries below a directory that are in their place; what cannot be listed just now counts as nothing.
fn count(top: &Path) -> usize {
    let Ok(items) = fs::read_dir(top) else { return 0 };
    let below = |item: fs::DirEntry| {
        let part = item.file_name().as_bytes().ends_with(b".ibex-part");
        let nested = if item.file_type().is_ok_and(|kind| kind.is_dir()) { count(&item.path()) } else { 0 };
        nested + usize::from(!part)
    };
    items.flatten().map(below).sum()
}

fn speed(outcome: &serde_json::Value) -> Result<String> {
    let bytes = outcome["bytes_copied"].as_f64().context("the outcome lacks bytes_copied")?;
    let seconds = outcome["seconds"].as_f64().context("the outcome lacks seconds")?;
    Ok(format!("{} files, {:.2} GB/s", outcome["files_copied"], bytes / seconds / 1e9))
}

fn remove(top: &Path) -> Result<()> {
    fs::remove_dir_all(top).with_context(|| format!("cannot remove {}", top.display()))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: the path is not UTF-8", path.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
