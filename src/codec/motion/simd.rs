// SPDX-License-Identifier: MPL-2.0
//! Run-time choice between plain code and the same code compiled for AVX2.

/// Defines a function that runs `$body`, compiled for AVX2 where the processor has it.
///
/// `$body` must be `#[inline(always)]`. It is integer code, so both ways give one result.
macro_rules! with_avx2 {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn vectorised($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature that the function was compiled for.
                    return unsafe { vectorised($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}
pub(crate) use with_avx2;
