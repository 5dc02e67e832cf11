// SPDX-License-Identifier: MPL-2.0
//! What lies beyond the border of a picture.

/// Where sample `at` of an axis of `length` samples comes from: beyond its ends the axis goes on
/// mirrored, the last sample twice. MATLAB's `imresize` takes the same for granted, by which the
/// pictures of papers were shrunk, and those that networks learn from.
pub(super) fn mirrored(at: isize, length: usize) -> usize {
    let at = at.rem_euclid(2 * length as isize) as usize;
    at.min(2 * length - 1 - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_mirrored_as_often_as_it_takes() {
        let places = |length| (-5..8).map(move |at| mirrored(at, length));
        assert!(places(1).eq([0; 13]));
        assert!(places(3).eq([1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]));
        assert!(places(8).eq([4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7]));
    }
}
