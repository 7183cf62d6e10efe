//! Any bytes as a snapshot, cut anywhere: no panic, the cuts change nothing, and what is read is
//! written and read to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_replica::Change;
use xmppsync_wire::ldif::{LdifError, LdifReader, LdifWriter};

fn read(bytes: &[u8], piece: usize) -> Vec<Result<Change, LdifError>> {
    let mut reader = LdifReader::new();
    let mut results = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece).expect("a fuzzer's input is far below the limit");
        results.extend(reader.by_ref());
    }
    reader.finish();
    results.extend(reader);
    results
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let results = read(bytes, usize::from(piece) + 1);
    assert_eq!(format!("{results:?}"), format!("{:?}", read(bytes, bytes.len().max(1))));

    let mut writer = LdifWriter::new(Vec::new(), &[]).expect("a Vec takes everything");
    let mut written = Vec::new();
    for change in results.into_iter().flatten() {
        match writer.write(&change) {
            Ok(()) => written.push(change),
            // Written whole it can be over the limit that its base64 was below.
            Err(LdifError::NotAnEntry { .. }) => {}
            Err(error) => panic!("read, but not to be written: {error}"),
        }
    }
    let again: Result<Vec<Change>, LdifError> = read(&writer.into_inner(), 64).into_iter().collect();
    assert_eq!(again.expect("what was written is read"), written);
});
