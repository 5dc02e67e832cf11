// SPDX-License-Identifier: MPL-2.0
//! Checksums of many overlapping pieces of the same bytes, in time linear in the bytes.
//!
//! Damaged or hostile bytes may hold a header at every eighth byte, each with a length of
//! megabytes. Checking each one's checksum on its own would take time in the square of the bytes.
//! A CRC is linear: that of a piece follows from those of the bytes before its end and before its
//! begin.

/// CRC-32C's polynomial without its highest term, the lowest bit for the highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Bytes between two of the kept values.
const STEP: u64 = 256;

/// Product of two polynomials modulo CRC-32C's.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 1 << 31);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 {
            b >> 1
        } else {
            b >> 1 ^ POLYNOMIAL
        };
        bit >>= 1;
    }
    product
}

/// `POWERS[place][digit]` is what a register is multiplied by when `digit * 256^place` zero bytes
/// pass.
const POWERS: [[u32; 256]; 4] = {
    let mut powers = [[1 << 31; 256]; 4];
    // x to the eighth: one byte.
    let mut unit = 1 << 23;
    let mut place = 0;
    while place < 4 {
        let mut digit = 1;
        while digit < 256 {
            powers[place][digit] = multiply(powers[place][digit - 1], unit);
            digit += 1;
        }
        unit = multiply(powers[place][255], unit);
        place += 1;
    }
    powers
};

/// The register after `bytes` zero bytes.
fn shifted(register: u32, bytes: u32) -> u32 {
    let digits = bytes.to_le_bytes();
    digits
        .iter()
        .zip(&POWERS)
        .filter(|(digit, _)| **digit != 0)
        .fold(register, |register, (digit, powers)| {
            multiply(powers[usize::from(*digit)], register)
        })
}

/// The register after some bytes. Without the inversions before and after, that is what makes it
/// linear.
fn after(register: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!register, bytes)
}

/// Registers after the bytes of a stream, as far as they were needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checksums {
    /// Where in the stream the registers begin at zero.
    start: u64,
    /// The register every [`STEP`] bytes.
    registers: Vec<u32>,
    /// Pieces that begin before this place overlap one that did not fit: only they need registers.
    doubtful: u64,
    /// Bytes that went through the checksum, for tests.
    #[cfg(test)]
    pub work: u64,
}

impl Checksums {
    /// Whether the CRC-32C of `header` and then of `data[from..to]` is `expected`. `offset` is
    /// where `data` lies in the stream; the bytes at one place must not change. Where offsets fall,
    /// as when the same access unit is looked at again, registers are made anew.
    pub fn fit(
        &mut self,
        header: &[u8],
        data: &[u8],
        offset: u64,
        (from, to): (usize, usize),
        expected: u32,
    ) -> bool {
        let crc = crc32c::crc32c(header);
        let begin = offset + from as u64;
        let got = if begin < self.doubtful {
            !self.register(!crc, data, offset, from, to)
        } else {
            self.count(to - from);
            crc32c::crc32c_append(crc, &data[from..to])
        };
        if got != expected {
            self.doubtful = self.doubtful.max(offset + to as u64);
        }
        got == expected
    }

    /// The register after `data[from..to]`, when it is `register` before.
    fn register(&mut self, register: u32, data: &[u8], offset: u64, from: usize, to: usize) -> u32 {
        self.forget_before(offset);
        let place = |at: usize| offset + at as u64 - self.start;
        let (first, last) = (place(from).div_ceil(STEP), place(to) / STEP);
        if first >= last {
            self.count(to - from);
            return after(register, &data[from..to]);
        }
        while (self.registers.len() as u64) <= last {
            let known = self.registers.last().copied().unwrap_or(0);
            let at = (self.registers.len() as u64 - 1) * STEP + self.start - offset;
            let bytes = &data[at as usize..][..STEP as usize];
            self.registers.push(after(known, bytes));
            self.count(bytes.len());
        }
        let at = |step: u64| (step * STEP + self.start - offset) as usize;
        let (begin, end) = (at(first), at(last));
        let (before, behind) = (&data[from..begin], &data[end..to]);
        let difference = self.registers[first as usize] ^ after(register, before);
        let zeros = (end - begin) as u32;
        let middle = self.registers[last as usize] ^ shifted(difference, zeros);
        let result = after(middle, behind);
        self.count(before.len() + behind.len());
        result
    }

    /// Drops registers of bytes that are gone, from time to time. Begins anew where none is at
    /// `offset` or after it, or the first one is after it.
    fn forget_before(&mut self, offset: u64) {
        let known = self.registers.len() as u64;
        let held = self.start..self.start + known * STEP;
        if !held.contains(&offset) || offset > held.end - STEP {
            self.start = offset;
            self.registers.clear();
            self.registers.push(0);
        } else {
            let gone = (offset - self.start) / STEP;
            if gone > known / 2 {
                self.registers.drain(..gone as usize);
                self.start += gone * STEP;
            }
        }
    }

    #[cfg(test)]
    fn count(&mut self, bytes: usize) {
        self.work += bytes as u64;
    }

    #[cfg(not(test))]
    fn count(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_checksums_that_they_have_alone() {
        let stream: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let mut sums = Checksums::default();
        for offset in [0usize, 1, 255, 256, 700, 3000, 2999, 300, 256, 0] {
            let data = &stream[offset..];
            for (from, to) in [(0, 0), (0, 1), (3, 900), (255, 256), (256, 1024), (1, 1999)] {
                let crc = crc32c::crc32c_append(crc32c::crc32c(b"head"), &data[from..to]);
                for wrong in [0, 1, 1 << 31] {
                    let fit = sums.fit(b"head", data, offset as u64, (from, to), crc ^ wrong);
                    assert_eq!(fit, wrong == 0, "{from}..{to} from {offset}");
                }
            }
        }
    }

    #[test]
    fn zeros_are_passed_in_any_number() {
        for bytes in [0, 1, 255, 256, 257, 70_000, 1 << 20] {
            let expected = after(0xdead_beef, &vec![0; bytes]);
            assert_eq!(shifted(0xdead_beef, bytes as u32), expected, "{bytes}");
        }
    }
}
