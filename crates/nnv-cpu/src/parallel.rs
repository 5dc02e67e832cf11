// SPDX-License-Identifier: MPL-2.0
//! A few threads for a few equal jobs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether threads can be spawned: WebAssembly has none unless it was built for shared memory, and
/// an attempt would panic.
pub const SPAWNS: bool = !cfg!(all(target_family = "wasm", not(target_feature = "atomics")));

/// `threads`, with 0 replaced by what the machine has (at most 16).
pub fn resolve(threads: u32) -> usize {
    match threads {
        _ if !SPAWNS => 1,
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(16)),
        n => (n as usize).min(256),
    }
}

/// Calls `f` with 0..n, on up to `threads` threads, and returns the results in order.
///
/// A panic of `f` goes on in the caller.
pub fn map<R: Send>(threads: usize, n: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if !SPAWNS || threads <= 1 || n <= 1 {
        return (0..n).map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return done;
            }
            done.push((i, f(i)));
        }
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads.min(n)).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for h in handles {
            results.extend(
                h.join()
                    .unwrap_or_else(|payload| std::panic::resume_unwind(payload)),
            );
        }
        results
    });
    results.sort_unstable_by_key(|r| r.0);
    results.into_iter().map(|r| r.1).collect()
}

/// Calls `f` with each item, on up to `threads` threads.
///
/// A panic of `f` goes on in the caller.
pub fn for_each<T: Send>(threads: usize, items: Vec<T>, f: impl Fn(T) + Sync) {
    let n = items.len();
    let items = Mutex::new(items.into_iter());
    map(threads, n, |_| {
        let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
        // There are as many calls as items.
        item.map(&f)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_used_once() {
        for threads in [1, 2, 5] {
            let mut numbers = vec![0; 100];
            for_each(threads, numbers.chunks_mut(7).collect(), |part| {
                part.iter_mut().for_each(|n| *n += 1);
            });
            assert_eq!(numbers, [1; 100]);
        }
    }

    #[test]
    fn results_come_in_order() {
        for threads in [1, 2, 5] {
            for n in [0, 1, 2, 17] {
                let got = map(threads, n, |i| i * i);
                assert_eq!(got, (0..n).map(|i| i * i).collect::<Vec<_>>());
            }
        }
        assert!(resolve(0) >= 1);
        assert_eq!(resolve(3), 3);
    }
}
