//! No target: begun with `-runs=0` in the checkout's root, it writes what the targets begin with to `fuzz/corpus`.
#![no_main]

use std::path::Path;
use std::{fs, io};

libfuzzer_sys::fuzz_target!(init: write().expect("write the seeds"), |_bytes: &[u8]| {});

fn write() -> io::Result<()> {
    for (target, inputs) in dataplane::fuzzing::seeds()? {
        let folder = Path::new("fuzz/corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}
