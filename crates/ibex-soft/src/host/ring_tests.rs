//! A ring carries every packet once, unchanged and in order, whatever the batches; and survives garbage.

use super::super::segment;
use super::*;

/// SplitMix64: repeatable, and good enough to choose lengths by.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Packet number `number`: its length and its bytes follow from it.
fn packet(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let most = [16, 80, 600, MAX_PACKET as u64][random.below(4) as usize];
    let len = (12 + random.below(most - 11)) / 4 * 4;
    // Bytes that look like headers: what an earlier lap left must not matter.
    let fill = if number.is_multiple_of(3) { header(64).to_vec() } else { number.to_ne_bytes().to_vec() };
    fill.into_iter().cycle().take(len as usize).collect()
}

fn stage(packet: &[u8], records: &mut Vec<u8>) {
    let start = records.len();
    records.extend(header(packet.len()));
    records.extend(packet);
    records.resize(start + record(packet.len()), 0xEE);
}

#[test]
fn every_packet_arrives_once_in_order_whatever_the_batches() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let (_fd, map) = segment::create(PAIR, false).unwrap();
        let side = if seed % 2 == 0 { Side::Forth } else { Side::Back };
        let (mut writer, mut reader) = (Writer::new(side), Reader::new(side));
        let (mut sent, mut got) = (0, 0);
        let mut out = [0; MAX_PACKET];
        let mut full = 0;
        while got < 4000 {
            let mut records = Vec::new();
            let first = sent;
            for _ in 0..1 + random.below(12) {
                stage(&packet(sent), &mut records);
                sent += 1;
            }
            if writer.fits(&map, records.len()).unwrap() {
                writer.write(&map, &records);
            } else {
                (full, sent) = (full + 1, first);
            }
            // A reader that is mostly as fast, and sometimes lags until the ring is full.
            let most = if seed % 4 == 0 { random.below(10) } else { 100 };
            for _ in 0..most {
                let Some(len) = reader.read(&map, &mut out).unwrap() else { break };
                assert_eq!(&out[..len], packet(got), "packet {got}");
                got += 1;
            }
            reader.tell(&map);
        }
        assert!(seed % 4 != 0 || full > 0, "never full");
    }
}

#[test]
fn a_ring_full_to_the_brim_is_read_to_the_end() {
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let (mut writer, mut reader) = (Writer::new(Side::Forth), Reader::new(Side::Forth));
    let mut out = [0; MAX_PACKET];
    let mut number = 0u64;
    // Several laps of records of one, two and three lines, so that each place of the end comes up.
    for round in 0..50 {
        let mut written = 0;
        loop {
            let mut records = Vec::new();
            stage(&vec![number as u8; 12 + round % 3 * 64], &mut records);
            if !writer.fits(&map, records.len()).unwrap() {
                break;
            }
            writer.write(&map, &records);
            (written, number) = (written + 1, number + 1);
        }
        assert!(written > DATA / (4 * LINE));
        for back in (1..=written).rev() {
            let len = reader.read(&map, &mut out).unwrap().expect("as many as were written");
            assert!(out[..len].iter().all(|&byte| byte == (number - back as u64) as u8));
        }
        assert_eq!(reader.read(&map, &mut out), Ok(None));
        reader.tell(&map);
    }
}

#[test]
fn a_waiting_writer_is_told_at_once() {
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let (mut writer, mut reader) = (Writer::new(Side::Back), Reader::new(Side::Back));
    let mut out = [0; MAX_PACKET];
    let mut records = Vec::new();
    stage(&[1; 64], &mut records);
    writer.write(&map, &records);
    reader.read(&map, &mut out).unwrap();
    assert!(!reader.tell(&map), "nobody waits");
    writer.want_room(&map, true);
    assert!(reader.tell(&map));
    assert!(!reader.tell(&map), "nothing new");
    assert!(writer.fits(&map, DATA / 2).unwrap());
}

#[test]
fn garbage_is_noticed_and_nothing_is_read_outside() {
    let mut random = Random(7);
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let mut out = [0; MAX_PACKET];
    for round in 0..20_000u64 {
        let side = if round % 2 == 0 { Side::Forth } else { Side::Back };
        let head = random.below((DATA / LINE) as u64) * LINE as u64 + (random.below(3) * DATA as u64);
        let mut reader = Reader { side, head, told: head };
        let kind = [PACKET, WRAP, random.below(1 << 32)][random.below(3) as usize];
        let length = [random.below(1 << 32), random.below(5000), DATA as u64 - head % DATA as u64];
        let word = kind << 32 | length[random.below(3) as usize];
        map.word(side.data() + head as usize % DATA).store(word, Ordering::Relaxed);
        // Whatever it is, it ends.
        for _ in 0..DATA / LINE {
            match reader.read(&map, &mut out) {
                Ok(Some(len)) => assert!((MIN_PACKET..=MAX_PACKET).contains(&len)),
                Ok(None) | Err(Garbage) => break,
            }
        }
        // A position that no reader can have.
        let mut writer = Writer { side, tail: head + 64, head };
        let told = random.below(u64::MAX);
        map.word(side.control() + POSITION).store(told, Ordering::Relaxed);
        if let Ok(fits) = writer.fits(&map, DATA) {
            assert!(!fits && (told == head || told == head + 64));
        }
    }
    assert_eq!(Reader::new(Side::Forth).take(&map, WRAP << 32, &mut out), Err(Garbage));
}
