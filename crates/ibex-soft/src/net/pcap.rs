//! Packet capture: what the device sends, and what it receives from other hosts, as a file that tshark reads.
//!
//! Owns the file format (pcap with nanoseconds, link type RAW: packets begin with their IP header) and the IP and UDP headers,
//! which are made up as the kernel makes them. Packets that travel through memory are written as they would have
//! travelled by UDP. `IBEX_SOFT_PCAP` names the file; `%p` in it becomes the process's number. Several processes may write to one
//! file: each packet is appended whole, and packets between them are written by the sender only.
//!
//! Read first: pcap-savefile(5), RFC 791, RFC 768, RFC 8200.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ibex_wire::ICRC_LEN;
use ibex_wire::icrc::Flow;

/// Nanosecond timestamps, in the writer's byte order.
const MAGIC: u32 = 0xa1b2_3c4d;
/// LINKTYPE_RAW.
const RAW: u32 = 101;
/// No packet of ours is longer: headers, 4096 bytes, ICRC.
const SNAP: u32 = 1 << 16;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// An open capture.
#[derive(Debug)]
pub(super) struct Capture {
    file: File,
    /// Whether it could not be written to any more.
    ended: AtomicBool,
}

impl Capture {
    /// Opens a file to append to; an empty or new one gets its header.
    ///
    /// # Errors
    /// Those of opening, locking and writing it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let name = path.to_string_lossy().replace("%p", &std::process::id().to_string());
        let mut file = OpenOptions::new().append(true).create(true).open(name)?;
        // Of several processes one writes the header.
        file.lock()?;
        if file.metadata()?.len() == 0 {
            let mut header = Vec::with_capacity(24);
            header.extend(MAGIC.to_ne_bytes());
            header.extend(2u16.to_ne_bytes());
            header.extend(4u16.to_ne_bytes());
            // Time zone and accuracy: always zero.
            header.extend([0; 8]);
            header.extend(SNAP.to_ne_bytes());
            header.extend(RAW.to_ne_bytes());
            file.write_all(&header)?;
        }
        file.unlock()?;
        Ok(Self { file, ended: AtomicBool::new(false) })
    }

    /// Writes what is sent along `path`, to a queue pair of the address `here` unless the path has one of its own.
    pub(super) fn sent(
        &self,
        from: SocketAddr,
        here: SocketAddr,
        path: &super::tx::Path,
        packets: &[u8],
        segment: usize,
    ) {
        match path {
            super::tx::Path::Udp(target, ..) if target.address().ip() != here.ip() => {
                self.write(from, target.address(), packets, segment, 0);
            }
            // Processes of one address have ports of their own, by which nobody would know RoCE.
            super::tx::Path::Udp(..) => packets.chunks(segment.max(1)).for_each(|packet| {
                self.unsealed(from, here, &packet[..packet.len().saturating_sub(ICRC_LEN)])
            }),
            _ => packets.chunks(segment.max(1)).for_each(|packet| self.unsealed(from, here, packet)),
        }
    }

    /// Writes a packet without its ICRC, which gets the one that it would have.
    pub(super) fn unsealed(&self, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        let mut sealed = [packet, &[0; ICRC_LEN]].concat();
        if let Some(flow) = Flow::new(from, to) {
            flow.seal(0, &mut sealed);
            self.write(from, to, &sealed, sealed.len(), 0);
        }
    }

    /// Writes sealed packets of `segment` bytes each, the last perhaps shorter, numbered from `first`.
    pub(super) fn write(&self, from: SocketAddr, to: SocketAddr, packets: &[u8], segment: usize, first: u16) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = Vec::with_capacity(packets.len() + 128 * packets.len().div_ceil(segment.max(1)));
        for (index, packet) in packets.chunks(segment.max(1)).enumerate() {
            let start = out.len();
            // The format has 32 bits for seconds, enough until 2106.
            out.extend((now.as_secs() as u32).to_ne_bytes());
            out.extend(now.subsec_nanos().to_ne_bytes());
            out.extend([0; 8]);
            let before = out.len();
            datagram(&mut out, from, to, first.wrapping_add(index as u16), packet);
            let length = ((out.len() - before) as u32).to_ne_bytes();
            out[start + 8..start + 12].copy_from_slice(&length);
            out[start + 12..start + 16].copy_from_slice(&length);
        }
        // A full disk ends the capture, and nothing else.
        if let Err(error) = self.append(&out)
            && !self.ended.swap(true, Ordering::Relaxed)
        {
            eprintln!("ibex-soft: the capture of IBEX_SOFT_PCAP ends here: {error}");
        }
    }

    /// Writes all of `records`, or nothing.
    fn append(&self, records: &[u8]) -> io::Result<()> {
        let written = loop {
            match (&self.file).write(records) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written?,
            }
        };
        if written == records.len() {
            return Ok(());
        }
        // A part of a packet would be taken for a damaged file. Nothing of other processes is behind it, or it stays.
        let end = (&self.file).stream_position()?;
        if self.file.metadata()?.len() == end {
            self.file.set_len(end.saturating_sub(written as u64))?;
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// Appends the datagram with its headers.
fn datagram(out: &mut Vec<u8>, from: SocketAddr, to: SocketAddr, identification: u16, packet: &[u8]) {
    // Far below 64 KiB.
    let udp_length = (UDP_HEADER + packet.len()) as u16;
    let ip = out.len();
    // The addresses and what follows them in the pseudo header of the UDP checksum.
    let mut pseudo = Vec::with_capacity(48);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            out.extend([0x45, 0]);
            out.extend((20 + udp_length).to_be_bytes());
            out.extend(identification.to_be_bytes());
            // Do not fragment; 64 hops.
            out.extend([0x40, 0, 64, UDP, 0, 0]);
            out.extend(source.octets());
            out.extend(target.octets());
            let sum = checksum(&[&out[ip..]]);
            out[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
            pseudo.extend_from_slice(&out[ip + 12..ip + 20]);
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            out.extend([0x60, 0, 0, 0]);
            out.extend(udp_length.to_be_bytes());
            out.extend([UDP, 64]);
            out.extend(source.octets());
            out.extend(target.octets());
            pseudo.extend_from_slice(&out[ip + 8..ip + 40]);
        }
        // One link has one family.
        _ => return,
    }
    pseudo.extend([0, UDP]);
    pseudo.extend(udp_length.to_be_bytes());
    let udp = out.len();
    out.extend(from.port().to_be_bytes());
    out.extend(to.port().to_be_bytes());
    out.extend(udp_length.to_be_bytes());
    out.extend([0, 0]);
    out.extend_from_slice(packet);
    // 0 means "none" and is sent as its complement.
    let sum = match checksum(&[&pseudo, &out[udp..]]) {
        0 => 0xffff,
        sum => sum,
    };
    out[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of parts of even length, the last of any.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_what_the_kernel_would_send() {
        let mut out = Vec::new();
        let (from, to) = ("192.0.2.1:50000".parse().unwrap(), "192.0.2.2:4791".parse().unwrap());
        datagram(&mut out, from, to, 3, &[1, 2, 3]);
        assert_eq!(out.len(), 31);
        assert_eq!(&out[..4], &[0x45, 0, 0, 31]);
        assert_eq!(&out[4..8], &[0, 3, 0x40, 0]);
        assert_eq!(checksum(&[&out[..20]]), 0, "the header's checksum makes its sum zero");
        let pseudo = [&out[12..20], &[0, 17, 0, 11]].concat();
        assert_eq!(checksum(&[&pseudo, &out[20..]]), 0, "and so does UDP's");
        assert_eq!(&out[28..], &[1, 2, 3]);
    }

    #[test]
    fn a_full_disk_ends_a_capture() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let capture = Capture { file, ended: AtomicBool::new(false) };
        let (from, to) = ("[::1]:50000".parse().unwrap(), "[::1]:4791".parse().unwrap());
        for _ in 0..2 {
            capture.write(from, to, &[7; 25], 10, 0);
            assert!(capture.ended.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn two_writers_share_a_file() {
        let path = std::env::temp_dir().join(format!("ibex-capture-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let captures = [Capture::open(&path).unwrap(), Capture::open(&path).unwrap()];
        let (from, to) = ("[::1]:50000".parse().unwrap(), "[::1]:4791".parse().unwrap());
        for capture in &captures {
            capture.write(from, to, &[7; 25], 10, 0);
        }
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut rest = &bytes[24..];
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], rest[12..16]);
            lengths.push(length - 48);
            rest = &rest[16 + length..];
        }
        assert_eq!(lengths, [10, 10, 5, 10, 10, 5]);
    }
}
