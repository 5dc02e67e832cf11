// SPDX-License-Identifier: MPL-2.0
//! Bytes, big-endian integers and variable-length integers.

use super::BitstreamError;

/// Longest variable-length integer: ten groups of seven bits.
const MAX_VARINT: usize = 10;

/// Appends `value` in groups of seven bits, the lowest first, bit 7 set on all but the last.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer: 0, -1, 1, -2 … become 0, 1, 2, 3 …
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Reads fields of one header and knows their names for errors.
pub struct Reader<'a> {
    header: &'static str,
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// Reads the fields of the header with this name.
    pub fn new(header: &'static str, data: &'a [u8]) -> Reader<'a> {
        Reader {
            header,
            data,
            pos: 0,
        }
    }

    /// Bytes read so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.data.len() - self.pos
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`].
    pub fn bytes(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], BitstreamError> {
        let rest = &self.data[self.pos..];
        let Some(bytes) = rest.get(..n) else {
            return Err(BitstreamError::Truncated {
                header: self.header,
                field,
            });
        };
        self.pos += n;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`].
    pub fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], BitstreamError> {
        let mut a = [0; N];
        a.copy_from_slice(self.bytes(N, field)?);
        Ok(a)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, BitstreamError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes, the most significant one first.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, BitstreamError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Four bytes, the most significant one first.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, BitstreamError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// A variable-length integer in its shortest form.
    ///
    /// # Errors
    /// [`BitstreamError::Truncated`] and [`BitstreamError::Field`].
    pub fn varint(&mut self, field: &'static str) -> Result<u64, BitstreamError> {
        let mut value = 0u64;
        for i in 0..MAX_VARINT {
            let b = self.u8(field)?;
            let bits = u64::from(b & 0x7f);
            let overlong = b == 0 && i > 0;
            if i == MAX_VARINT - 1 && b > 1 || overlong {
                return self.fail(field, i64::from(b), "a shortest-form integer below 2^64");
            }
            value |= bits << (7 * i);
            if b & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.fail(field, -1, "an integer below 2^64")
    }

    /// A signed variable-length integer.
    ///
    /// # Errors
    /// As [`varint`](Self::varint).
    pub fn signed(&mut self, field: &'static str) -> Result<i64, BitstreamError> {
        let v = self.varint(field)?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    /// A variable-length integer within `min..=max`.
    ///
    /// # Errors
    /// As [`varint`](Self::varint).
    pub fn ranged(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
        allowed: &'static str,
    ) -> Result<u64, BitstreamError> {
        let v = self.varint(field)?;
        if (min..=max).contains(&v) {
            Ok(v)
        } else {
            self.fail(field, i64::try_from(v).unwrap_or(i64::MAX), allowed)
        }
    }

    /// Refuses what is left.
    ///
    /// # Errors
    /// [`BitstreamError::Trailing`].
    pub fn end(&self) -> Result<(), BitstreamError> {
        match self.left() {
            0 => Ok(()),
            left => Err(BitstreamError::Trailing {
                header: self.header,
                left,
            }),
        }
    }

    /// The error of a field whose value the format does not allow.
    ///
    /// # Errors
    /// Always.
    pub fn fail<T>(
        &self,
        field: &'static str,
        value: i64,
        allowed: &'static str,
    ) -> Result<T, BitstreamError> {
        Err(BitstreamError::Field {
            header: self.header,
            field,
            value,
            allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip() {
        for v in [
            0,
            1,
            127,
            128,
            300,
            1 << 20,
            u64::from(u32::MAX),
            u64::MAX >> 1,
            u64::MAX,
        ] {
            let mut b = Vec::new();
            put_varint(&mut b, v);
            put_signed(&mut b, v as i64);
            put_signed(&mut b, (v as i64).wrapping_neg());
            let mut r = Reader::new("test", &b);
            assert_eq!(r.varint("v"), Ok(v));
            assert_eq!(r.signed("v"), Ok(v as i64));
            assert_eq!(r.signed("v"), Ok((v as i64).wrapping_neg()));
            assert_eq!(r.left(), 0);
        }
        assert!(Reader::new("test", &[0xff; 12]).varint("v").is_err());
        assert!(Reader::new("test", &[0x80, 0]).varint("v").is_err());
        assert!(Reader::new("test", &[0x80]).varint("v").is_err());
    }
}
