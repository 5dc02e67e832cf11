// SPDX-License-Identifier: MPL-2.0
//! Whether a shared library is all there, judged before the system's loader maps it.
//!
//! The loader maps what the program headers name without a look at the file's size. Touching a page
//! beyond the end of a file that was cut off (a broken download, a full disk) ends the process with
//! a bus error.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Numbers of one of the two classes of files, in one of the two orders of bytes.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
    big: bool,
}

impl Layout {
    fn number(self, bytes: &[u8], at: usize, len: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + len)?;
        let add = |value, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.big {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }

    /// A field whose place and length depend on the class.
    fn field(self, bytes: &[u8], wide: (usize, usize), narrow: (usize, usize)) -> Option<u64> {
        let (at, len) = if self.wide { wide } else { narrow };
        self.number(bytes, at, len)
    }
}

/// A piece of the file that its headers name must lie within it.
fn inside(what: &str, offset: u64, len: u64, size: u64) -> Result<(), String> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        end => Err(format!(
            "it is cut off: {what} would end at byte {}, the file has {size}; fetch it again",
            end.unwrap_or(u64::MAX)
        )),
    }
}

/// Checks the headers of a library.
///
/// # Errors
/// A sentence on what is wrong with it.
pub(super) fn check(file: &mut File) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("it cannot be read: {e}");
    let size = file.metadata().map_err(unreadable)?.len();
    let mut read = |offset: u64, len: u64| -> Result<Vec<u8>, String> {
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    };
    let header = read(0, 64)?;
    if !header.starts_with(b"\x7fELF") {
        return Err("it is not a shared library (no ELF file)".into());
    }
    let short = || "it is cut off within its header; fetch it again".to_string();
    let class = |at: usize| match header.get(at) {
        Some(1) => Ok(false),
        Some(2) => Ok(true),
        _ => Err("it is not a shared library (its ELF header is damaged)".to_string()),
    };
    let layout = Layout {
        wide: class(4)?,
        big: class(5)?,
    };
    let get = |wide, narrow| layout.field(&header, wide, narrow).ok_or_else(short);
    if get((16, 2), (16, 2))? != 3 {
        return Err("it is a program or an object file, not a shared library".into());
    }
    let tables = [
        (
            "its table of program headers",
            get((32, 8), (28, 4))?,
            get((54, 2), (42, 2))?,
            get((56, 2), (44, 2))?,
        ),
        (
            "its table of section headers",
            get((40, 8), (32, 4))?,
            get((58, 2), (46, 2))?,
            get((60, 2), (48, 2))?,
        ),
    ];
    for (i, (what, offset, entry, count)) in tables.into_iter().enumerate() {
        inside(what, offset, entry * count, size)?;
        let table = read(offset, entry * count)?;
        for entry in table.chunks_exact((entry as usize).max(1)) {
            let get = |wide, narrow| {
                let damaged = || format!("{what} is damaged; fetch it again");
                layout.field(entry, wide, narrow).ok_or_else(damaged)
            };
            // Sections of type 8 take no place in the file.
            let (kind, piece) = if i == 0 {
                let piece = (get((8, 8), (4, 4))?, get((32, 8), (16, 4))?);
                (get((0, 4), (0, 4))?, piece)
            } else {
                let piece = (get((24, 8), (16, 4))?, get((32, 8), (20, 4))?);
                (get((4, 4), (4, 4))?, piece)
            };
            if i == 0 || kind != 8 && kind != 0 {
                inside("a part of it", piece.0, piece.1, size)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A library of 64 bits with one program header and one section, whose parts have this size.
    fn library(part: u64) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 + 64 + 100];
        let mut put = |at: usize, value: u64, len: usize| {
            file[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        put(0, u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0"), 8);
        put(16, 3, 2);
        put(32, 64, 8);
        put(54, 56, 2);
        put(56, 1, 2);
        put(40, 120, 8);
        put(58, 64, 2);
        put(60, 1, 2);
        // The program header, then the section.
        put(64, 1, 4);
        put(64 + 8, 184, 8);
        put(64 + 32, part, 8);
        put(120 + 4, 1, 4);
        put(120 + 24, 184, 8);
        put(120 + 32, part, 8);
        file
    }

    fn checked(bytes: &[u8]) -> Result<(), String> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("nnv-elf-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        let result = check(&mut File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn cut_libraries_are_refused() {
        let sound = library(100);
        assert_eq!(checked(&sound), Ok(()));
        for cut in 0..sound.len() {
            assert!(checked(&sound[..cut]).is_err(), "cut at {cut}");
        }
        for part in [101, u64::MAX] {
            let error = checked(&library(part)).unwrap_err();
            assert!(error.contains("cut off"), "{error}");
        }
        assert!(checked(b"").unwrap_err().contains("not a shared library"));
        assert!(checked(&[0x55; 100]).unwrap_err().contains("no ELF"));
        for at in 0..120 {
            let mut damaged = sound.clone();
            damaged[at] ^= 0xff;
            let _ = checked(&damaged);
        }
    }

    #[test]
    fn what_the_system_loads_is_sound() {
        // This test's own program is no library, what it is linked with is.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libraries: Vec<_> = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .filter(|path| path.contains(".so"))
            .collect();
        assert!(!libraries.is_empty());
        for path in libraries {
            assert_eq!(check(&mut File::open(path).unwrap()), Ok(()), "{path}");
        }
    }
}
