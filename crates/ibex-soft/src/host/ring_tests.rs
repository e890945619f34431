//! A ring carries every packet once, unchanged and in order, whatever the batches and whichever kind of record; and
//! survives garbage.

use ibex_proto::Ack;
use ibex_wire::{Aeth, Header as _, Opcode, Packet, Psn, Qpn, Syndrome, padding};

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

/// What an express record says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    bth: Bth,
    /// And the queue pair that it is for.
    ack: Option<(Qpn, Ack)>,
    /// Without padding.
    payload: Vec<u8>,
}

/// Message number `number`, with `len` bytes of payload.
fn message(number: u64, len: usize, with_ack: bool) -> Message {
    let mut random = Random(number);
    let [psn, acked, qpn, msn] = [(); 4].map(|()| random.below(1 << 24) as u32);
    let bth = Bth {
        solicited: number.is_multiple_of(2),
        ack_req: number.is_multiple_of(3),
        pad: padding(len) as u8,
        ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(qpn), Psn::new(psn))
    };
    let to = Qpn::new(if number.is_multiple_of(4) { qpn } else { acked ^ psn });
    let ack = Ack { psn: Psn::new(acked), aeth: Aeth { syndrome: Syndrome::ACK, msn } };
    let ack = with_ack.then_some((to, ack));
    // Also bytes that look like headers.
    let fill = [header(64), (EXPRESS << 32 | 8).to_ne_bytes(), number.to_ne_bytes()][number as usize % 3];
    Message { bth, ack, payload: fill.into_iter().cycle().take(len).collect() }
}

impl Message {
    /// The packets that would have been sent had there been no express.
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if let Some((to, Ack { psn, aeth })) = self.ack {
            let mut packet = vec![0; Bth::LEN + Aeth::LEN];
            let bth = Bth::new(Opcode::RC_ACK, to, psn);
            aeth.put(bth.put(&mut packet).unwrap()).unwrap();
            packets.push(packet);
        }
        let mut packet = vec![0; Bth::LEN];
        self.bth.put(&mut packet).unwrap();
        packet.extend(&self.payload);
        packet.resize(packet.len() + padding(self.payload.len()), 0);
        packets.push(packet);
        packets
    }

    /// Writes it, if it comes before the ring's end. It fits.
    fn write(&self, writer: &mut Writer, map: &Mapping) -> bool {
        let len = self.payload.len().next_multiple_of(4);
        let Some(mut space) = writer.space(map, len) else { return false };
        // In two parts, as a gather list might, and the padding.
        let (front, back) = self.payload.split_at(self.payload.len() / 3);
        space.write(0, front);
        space.write(front.len(), back);
        space.write(self.payload.len(), &[0; 3][..padding(self.payload.len())]);
        let mut bth = [0; Bth::LEN];
        self.bth.emit(&mut bth);
        let beside = self.ack.map_or_else(Beside::default, |(to, ack)| Beside::new(to, ack));
        writer.publish(map, len, &bth, beside);
        true
    }

    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        self.packets().iter().for_each(|packet| stage(packet, &mut records));
        records
    }
}

/// What a record says, read both ways: taken apart, its payload placed in `buffer`, and as packets, which must agree.
fn taken_apart(mut express: Express<'_>, buffer: &Mapping) -> Message {
    let half = express.len() / 2;
    if half > 0 {
        express.copy_to(0..half, buffer.memory(), 8);
        express.copy_to(half..express.len(), buffer.memory(), 8 + half);
    }
    let mut payload = vec![0xEE; express.len()];
    buffer.read(8, &mut payload);
    payload.truncate(payload.len() - usize::from(express.bth.pad));
    let mut packets = Vec::new();
    express.unpack(&mut [0xEE; MAX_PACKET], |packet| packets.push(packet.to_vec()));
    assert_eq!(packets.len(), express.packets());
    let own = express.ack();
    let other = express.take_other();
    assert!(own.is_none() || other.is_none());
    let other = other.map(|beside| (Qpn::new(beside.to), beside.ack().expect("there is one")));
    if other.is_some() {
        assert_eq!((express.packets(), express.take_other()), (1, None), "it is taken out");
    }
    let ack = own.map(|ack| (express.bth.dest_qpn, ack)).or(other);
    let message = Message { bth: express.bth, ack, payload };
    assert_eq!(packets, message.packets());
    message
}

fn stage(packet: &[u8], records: &mut Vec<u8>) {
    let start = records.len();
    records.extend(header(packet.len()));
    records.extend(packet);
    records.resize(start + record(packet.len()), 0xEE);
}

/// The length of the next packet, which was not sent by express; `None` if there is none.
fn read_packet(
    reader: &mut Reader,
    map: &Mapping,
    out: &mut [u8; MAX_PACKET],
) -> Result<Option<usize>, Garbage> {
    Ok(reader.read(map, out)?.map(|record| match record {
        Record::Packet(len) => len,
        Record::Express(_) => panic!("none was sent"),
    }))
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
                let Some(len) = read_packet(&mut reader, &map, &mut out).unwrap() else { break };
                assert_eq!(&out[..len], packet(got), "packet {got}");
                got += 1;
            }
            reader.tell(&map);
        }
        assert!(seed % 4 != 0 || full > 0, "never full");
    }
}

/// Every length at least once in each lap's worth of places, mixed with packets, so that every distance from the ring's end
/// comes up.
#[test]
fn express_records_arrive_once_in_order_among_packets() {
    for (seed, side) in [(0, Side::Forth), (1, Side::Back)] {
        let mut random = Random(seed);
        let (_fd, map) = segment::create(PAIR, false).unwrap();
        let (mut writer, mut reader) = (Writer::new(side), Reader::new(side));
        let mut out = [0; MAX_PACKET];
        let (_buffer, buffer) = segment::create(4096, false).unwrap();
        let (mut sent, mut got) = (Vec::new(), 0);
        let (mut at_end, mut full) = (0, 0);
        for number in 0..20_000u64 {
            let message = message(number, number as usize % 481, random.below(2) == 0);
            let other = packet(number);
            let mut records = Vec::new();
            if random.below(3) == 0 {
                stage(&other, &mut records);
            }
            let most = records.len() + express_record(480).max(message.records().len());
            if !writer.fits(&map, most).unwrap() {
                full += 1;
            } else {
                if !records.is_empty() {
                    writer.write(&map, &records);
                    sent.push(Err(other));
                }
                if message.write(&mut writer, &map) {
                    sent.push(Ok(message));
                } else {
                    at_end += 1;
                    writer.write(&map, &message.records());
                    sent.extend(message.packets().into_iter().map(Err));
                }
            }
            // A reader that is sometimes as fast, and sometimes lags until the ring is full.
            let most = if number / 2000 % 2 == 0 { 100 } else { random.below(3) };
            for _ in 0..most {
                match reader.read(&map, &mut out).unwrap() {
                    None => break,
                    Some(Record::Packet(len)) => assert_eq!(sent[got], Err(out[..len].to_vec()), "{got}"),
                    Some(Record::Express(express)) => {
                        assert_eq!(sent[got], Ok(taken_apart(express, &buffer)), "{got}")
                    }
                }
                got += 1;
            }
            assert_eq!(reader.is_ready(&map), got < sent.len());
            reader.tell(&map);
        }
        assert!(at_end > 3 && full > 0, "{at_end} at the end, {full} times full");
        assert!(writer.tail > 10 * DATA as u64);
    }
}

#[test]
fn express_records_of_every_length_and_place_round_trip() {
    let (_buffer, buffer) = segment::create(4096, false).unwrap();
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let mut out = [0; MAX_PACKET];
    for len in 0..=480 {
        for with_ack in [false, true] {
            // In the middle, and at each of the last places before the end.
            let last = (DATA - express_record(480) - LINE..DATA).step_by(LINE);
            for place in [0, DATA / 2].into_iter().chain(last) {
                let tail = (DATA + place) as u64;
                let mut writer = Writer { side: Side::Back, tail, head: tail };
                let mut reader = Reader { side: Side::Back, head: tail, told: tail };
                // What an earlier lap left behind.
                map.word(Side::Back.data() + place).store(0, Ordering::Relaxed);
                let message = message(place as u64 + len as u64, len, with_ack);
                let fits = place + express_record(len.next_multiple_of(4)) <= DATA;
                assert_eq!(message.write(&mut writer, &map), fits);
                if !fits {
                    assert_eq!(writer.tail, tail, "nothing has happened");
                    assert!(!reader.is_ready(&map));
                    writer.write(&map, &message.records());
                    for packet in message.packets() {
                        let len = read_packet(&mut reader, &map, &mut out).unwrap().unwrap();
                        assert_eq!(out[..len], packet);
                    }
                } else if let Some(Record::Express(express)) = reader.read(&map, &mut out).unwrap() {
                    assert_eq!(taken_apart(express, &buffer), message);
                } else {
                    panic!("an express record of {len} bytes is not seen at {place}");
                }
                assert!(!reader.is_ready(&map));
                assert_eq!(reader.head, writer.tail);
            }
        }
    }
}

/// Byte for byte, and as what they are.
#[test]
fn an_express_record_is_the_acknowledgement_and_the_message() {
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let (mut writer, mut reader) = (Writer::new(Side::Forth), Reader::new(Side::Forth));
    let sent = Message {
        bth: Bth {
            ack_req: true,
            solicited: true,
            pad: 3,
            pkey: ibex_wire::Pkey(0x8123),
            ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(0x1234), Psn::new(0xff_ffff))
        },
        ack: Some((
            Qpn::new(0x56_789a),
            Ack { psn: Psn::new(0xab_cdef), aeth: Aeth { syndrome: Syndrome::ACK, msn: 0x01_0203 } },
        )),
        payload: b"hello".to_vec(),
    };
    assert!(sent.write(&mut writer, &map));
    let mut out = [0xEE; MAX_PACKET];
    let Some(Record::Express(express)) = reader.read(&map, &mut out).unwrap() else { panic!("it is there") };
    let mut packets = Vec::new();
    express.unpack(&mut out, |packet| packets.push(packet.to_vec()));
    let [ack, send] = &packets[..] else { panic!("{packets:?}") };
    let bytes = [17, 0, 0x81, 0x23, 0, 0x56, 0x78, 0x9a, 0, 0xab, 0xcd, 0xef, 31, 1, 2, 3];
    // The flags of a header are as its sender has them.
    assert_eq!((ack[0], &ack[2..]), (bytes[0], &bytes[2..]));
    let ack = Packet::parse(ack).unwrap();
    assert_eq!((ack.opcode(), ack.aeth()), (Opcode::RC_ACK, sent.ack.map(|(_, ack)| ack.aeth)));
    let send = Packet::parse(send).unwrap();
    assert_eq!((*send.bth(), send.payload()), (sent.bth, &b"hello"[..]));
}

#[test]
fn absurd_express_records_are_garbage() {
    let (_fd, map) = segment::create(PAIR, false).unwrap();
    let mut out = [0; MAX_PACKET];
    let most = MAX_PACKET - Bth::LEN;
    let last = DATA - LINE;
    for (place, len, sound) in [
        (0, 0, true),
        (0, 1, false),
        (0, 2, false),
        (0, 3, false),
        (0, 482, false),
        (0, most, true),
        (0, most + 4, false),
        (0, DATA, false),
        (0, u32::MAX as usize, false),
        (0, u32::MAX as usize - 3, false),
        // A line has room for 32 bytes behind the words.
        (last, 32, true),
        (last, 36, false),
        (last - LINE, 96, true),
        (last - LINE, 100, false),
        (last, most, false),
        (DATA - most.next_multiple_of(LINE), most, false),
    ] {
        for side in [Side::Forth, Side::Back] {
            let mut reader = Reader { side, head: place as u64, told: 0 };
            map.word(side.data() + place).store(EXPRESS << 32 | len as u64, Ordering::Relaxed);
            let read = reader.read(&map, &mut out);
            assert_eq!(read.is_ok(), sound, "{len} bytes at {place}");
            if let Ok(record) = read {
                assert!(matches!(record, Some(Record::Express(express)) if express.len() == len));
                assert_eq!(reader.head as usize, place + express_record(len));
            }
            map.word(side.data() + place).store(0, Ordering::Relaxed);
        }
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
            let len = read_packet(&mut reader, &map, &mut out).unwrap().expect("as many as were written");
            assert!(out[..len].iter().all(|&byte| byte == (number - back as u64) as u8));
        }
        assert_eq!(read_packet(&mut reader, &map, &mut out), Ok(None));
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
    assert!(reader.read(&map, &mut out).unwrap().is_some());
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
        let kind = [PACKET, WRAP, EXPRESS, random.below(1 << 32)][random.below(4) as usize];
        let length = [random.below(1 << 32), random.below(5000), DATA as u64 - head % DATA as u64];
        let word = kind << 32 | length[random.below(3) as usize];
        map.word(side.data() + head as usize % DATA).store(word, Ordering::Relaxed);
        // Whatever it is, it ends.
        for _ in 0..DATA / LINE {
            match reader.read(&map, &mut out) {
                Ok(Some(Record::Packet(len))) => assert!((MIN_PACKET..=MAX_PACKET).contains(&len)),
                Ok(Some(Record::Express(express))) => {
                    // Whatever stands there, what comes out of it is inside the ring and of a packet's size.
                    assert!(Bth::LEN + express.len() <= MAX_PACKET);
                    let mut packets = 0;
                    express.unpack(&mut [0; MAX_PACKET], |bytes| {
                        assert!((MIN_PACKET..=MAX_PACKET).contains(&bytes.len()));
                        packets += 1;
                    });
                    assert_eq!(packets, express.packets());
                }
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
