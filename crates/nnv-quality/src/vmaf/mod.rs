// SPDX-License-Identifier: MPL-2.0
//! VMAF (Netflix, <https://github.com/Netflix/vmaf>) by the library libvmaf, loaded at run time.

mod library;

use std::collections::VecDeque;
use std::fmt;

use crate::PlaneView;
use crate::clip::Sum;
use library::{Context, Format, Functions};

/// Frames that a context gives scores of. Newer versions of the library know the motion, and by
/// it the scores, only when they are told that there is no frame more; and every version keeps what
/// it measured of each frame until it is closed.
const CHUNK: u64 = 120;
/// Frames that a context sees before those. Motion is between up to five frames, and the mean of
/// two such (models `hfr`).
const LEAD: u64 = 4;
/// Smallest sides, of models v0 and of all others. Version 3.0 of the library refuses shorter ones
/// of the former; others, and all of the latter, read beyond their memory.
const SMALLEST: (u32, u32) = (33, 216);

/// Why there is no VMAF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmafError {
    /// No library, or none that fits; what was tried.
    #[error(
        "VMAF needs the library libvmaf, version 2 or 3: install it (package libvmaf of Fedora and \
         Homebrew, vmaf of Arch Linux; for others its source is at github.com/Netflix/vmaf), or \
         name its file in NNV_VMAF_LIBRARY ({0})"
    )]
    Missing(String),
    /// The library does not have the model.
    #[error(
        "libvmaf {version} has no model {model:?} built in; {} is in every version, and newest is \
         the newest that it has",
        Vmaf::DEFAULT_MODEL
    )]
    Model {
        /// The name that was asked for.
        model: String,
        /// The library's version.
        version: String,
    },
    /// Chroma of a size that the library does not know.
    #[error(
        "VMAF is of 4:2:0, 4:2:2 and 4:4:4, not of chroma of {}x{} beside luma of {}x{}",
        .chroma.0, .chroma.1, .luma.0, .luma.1
    )]
    Pictures {
        /// Width and height of luma.
        luma: (usize, usize),
        /// Width and height of chroma.
        chroma: (usize, usize),
    },
    /// A call failed, with what it returned.
    #[error("libvmaf refuses the pictures ({0} returns {1}); some models need larger ones")]
    Failed(&'static str, i32),
}

/// A trained model of libvmaf's. It measures [frames by themselves](Self::frame), [`Vmaf`] a video.
#[derive(Clone, Debug)]
pub struct VmafModel {
    functions: &'static Functions,
    name: String,
}

/// VMAF of a video's frames in order. A frame's score is known some frames later: one, or up to 120
/// where the library is of version 3.2 or newer.
pub struct Vmaf {
    model: VmafModel,
    run: Option<Run>,
    /// Known, in order, and not yet asked for.
    scores: VecDeque<Option<f64>>,
    sum: Sum,
    known: u64,
}

impl fmt::Debug for Vmaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vmaf({}, {} known)", self.model.name, self.known)
    }
}

/// A context, and the number of its first frame.
struct Chunk {
    context: Context,
    first: u64,
}

/// Frames of one format.
struct Run {
    format: Format,
    now: Chunk,
    /// What follows, while it sees the frames before its own.
    next: Option<Chunk>,
    /// The end of what `now` gives scores of.
    end: u64,
    /// Frames that were fed, and those whose scores are known.
    fed: u64,
    known: u64,
}

impl VmafModel {
    /// Loads the library, unless it is loaded, and looks for a model that is built into it:
    /// [`Vmaf::DEFAULT_MODEL`], [`Vmaf::NEWEST_MODEL`] or another by its name.
    ///
    /// # Errors
    /// [`VmafError::Missing`], [`VmafError::Model`].
    pub fn new(name: &str) -> Result<Self, VmafError> {
        let functions = Functions::get()?;
        let names = match name {
            Vmaf::NEWEST_MODEL => &Vmaf::NEWEST[..],
            _ => &[name],
        };
        let mut found = Err(VmafError::Model {
            model: name.into(),
            version: functions.version().into(),
        });
        for name in names {
            found = Context::new(functions, name, 1).map(|_| *name);
            if !matches!(found, Err(VmafError::Model { .. })) {
                break;
            }
        }
        Ok(Self {
            functions,
            name: found?.into(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The smallest side of luma that has scores.
    pub fn smallest_side(&self) -> u32 {
        match self.name.contains("_v0.") {
            true => SMALLEST.0,
            false => SMALLEST.1,
        }
    }

    /// The score of one frame by itself, at once. `before` and `after` are the reference's frames
    /// around it, for motion: the default model looks no further. It costs what two frames of a
    /// video do.
    ///
    /// `None`: the pictures are too small.
    ///
    /// # Errors
    /// [`VmafError::Pictures`], [`VmafError::Failed`].
    pub fn frame(
        &self,
        before: Option<&[PlaneView<'_>; 3]>,
        reference: &[PlaneView<'_>; 3],
        distorted: &[PlaneView<'_>; 3],
        after: Option<&[PlaneView<'_>; 3]>,
    ) -> Result<Option<f64>, VmafError> {
        let format = Format::of(reference)?;
        if format.side() < self.smallest_side() {
            return Ok(None);
        }
        let mut context = self.context(2)?;
        // Frame 0 has no motion. So one that has a frame before it is frame 2: frame 1 has no score
        // that would take time.
        for before in before.into_iter().flat_map(|before| [before; 2]) {
            context.add(format, before, before)?;
        }
        context.add(format, reference, distorted)?;
        if let Some(after) = after {
            context.add(format, after, after)?;
        }
        context.flush()?;
        let number = if before.is_some() { 2 } else { 0 };
        context.score(number).map(Some)
    }

    fn context(&self, each: u32) -> Result<Context, VmafError> {
        Context::new(self.functions, &self.name, each)
    }
}

impl Vmaf {
    /// The model that ffmpeg takes unless told otherwise, and most published figures are of.
    pub const DEFAULT_MODEL: &str = "vmaf_v0.6.1";
    /// In place of a name: the newest of [`Vmaf::NEWEST`] that the library has.
    pub const NEWEST_MODEL: &str = "newest";
    /// Models for a television in usual distance, newest first.
    const NEWEST: [&str; 2] = ["vmaf_v1.0.16_3d0h", Self::DEFAULT_MODEL];

    /// By a model: see [`VmafModel::new`].
    ///
    /// # Errors
    /// As that.
    pub fn new(model: &str) -> Result<Self, VmafError> {
        Ok(Self {
            model: VmafModel::new(model)?,
            run: None,
            scores: VecDeque::new(),
            sum: Sum::default(),
            known: 0,
        })
    }

    /// Name of the model that scores are of.
    pub fn model(&self) -> &str {
        &self.model.name
    }

    /// The library's version.
    pub fn version(&self) -> &str {
        self.model.functions.version()
    }

    /// The next frame, both pictures of one size and depth. Where those change, the video begins
    /// anew.
    ///
    /// # Errors
    /// [`VmafError::Pictures`], [`VmafError::Failed`].
    pub(crate) fn add(
        &mut self,
        reference: &[PlaneView<'_>; 3],
        distorted: &[PlaneView<'_>; 3],
    ) -> Result<(), VmafError> {
        let format = Format::of(reference)?;
        if self.run.as_ref().is_some_and(|run| run.format != format) {
            self.finish()?;
        }
        if format.side() < self.model.smallest_side() {
            self.keep(None);
            return Ok(());
        }
        let mut run = match self.run.take() {
            Some(run) => run,
            None => Run {
                format,
                now: self.chunk(0)?,
                next: None,
                end: CHUNK,
                fed: 0,
                known: 0,
            },
        };
        if run.fed + LEAD == run.end {
            run.next = Some(self.chunk(run.fed)?);
        }
        for chunk in [Some(&mut run.now), run.next.as_mut()]
            .into_iter()
            .flatten()
        {
            chunk.context.add(format, reference, distorted)?;
        }
        run.fed += 1;
        // A frame's motion goes by the next frame, too: the chunk sees one more than its own.
        if run.fed > run.end {
            self.flush(&mut run)?;
            if let Some(next) = run.next.take() {
                run.now = next;
            }
            run.end += CHUNK;
        }
        // The rest is known later.
        let _ = self.collect(&mut run);
        self.run = Some(run);
        Ok(())
    }

    /// There is no frame more: all scores become known. What comes then is another video.
    ///
    /// # Errors
    /// [`VmafError::Failed`].
    pub(crate) fn finish(&mut self) -> Result<(), VmafError> {
        match self.run.take() {
            Some(mut run) => self.flush(&mut run),
            None => Ok(()),
        }
    }

    /// The score of the earliest frame that it was not yet asked for; `None`: not known yet;
    /// `Some(None)`: the pictures are too small.
    pub(crate) fn next(&mut self) -> Option<Option<f64>> {
        self.scores.pop_front()
    }

    /// The mean of what is known; `None` without frames, and where one has none.
    pub(crate) fn mean(&self) -> Option<f64> {
        let known = (self.known > 0).then_some(self.known as f64)?;
        self.sum.mean(known)
    }

    fn chunk(&self, first: u64) -> Result<Chunk, VmafError> {
        let context = self.model.context(1)?;
        Ok(Chunk { context, first })
    }

    /// Ends a chunk.
    fn flush(&mut self, run: &mut Run) -> Result<(), VmafError> {
        run.now.context.flush()?;
        self.collect(run).map_or(Ok(()), Err)
    }

    /// Takes what is known by now of the chunk; why it is not all.
    fn collect(&mut self, run: &mut Run) -> Option<VmafError> {
        while run.known < run.end.min(run.fed) {
            let frame = (run.known - run.now.first) as u32;
            match run.now.context.score(frame) {
                Ok(score) => self.keep(Some(score)),
                Err(why) => return Some(why),
            }
            run.known += 1;
        }
        None
    }

    fn keep(&mut self, score: Option<f64>) {
        self.scores.push_back(score);
        self.sum.add(score);
        self.known += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, Meter, Metrics, QualityError};

    /// `None`, and a word on it, where there is no library.
    fn vmaf(model: &str) -> Option<Vmaf> {
        match Vmaf::new(model) {
            Ok(vmaf) => Some(vmaf),
            Err(e) => {
                assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
                eprintln!("NOT RUN: {e}");
                None
            }
        }
    }

    /// Words of `depth` bits: Y, U and V with their width and height.
    type Planes = [(Vec<u16>, usize, usize); 3];

    /// Waves with noise that move; coarse, more so in every other picture.
    fn picture(
        size: (usize, usize),
        halves: (bool, bool),
        depth: u8,
        t: u64,
        coarse: bool,
    ) -> Planes {
        let mut seed = t as u32 + 1;
        std::array::from_fn(|p| {
            let half = |n: usize, halved: bool| if p > 0 && halved { n.div_ceil(2) } else { n };
            let (w, h) = (half(size.0, halves.0), half(size.1, halves.1));
            let step = if coarse { 16 + 48 * (t as u16 % 2) } else { 1 };
            let samples = (0..w * h).map(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, y) = ((i % w) as f32 + 1.5 * t as f32, (i / w) as f32);
                let wave = 110.0 + 90.0 * (x * 0.3).sin() * (y * 0.2).cos();
                ((wave as u16 + (seed >> 28) as u16) / step * step) << (depth - 8)
            });
            (samples.collect(), w, h)
        })
    }

    fn views(planes: &Planes, depth: u8) -> [PlaneView<'_>; 3] {
        planes
            .each_ref()
            .map(|(s, w, h)| PlaneView::u16(s, *w, *h, *w, depth).unwrap())
    }

    fn feed(size: (usize, usize), halves: (bool, bool), depth: u8, t: u64, to: &mut Vmaf) {
        let pair = [false, true].map(|coarse| picture(size, halves, depth, t, coarse));
        let [a, b] = pair.each_ref().map(|planes| views(planes, depth));
        to.add(&a, &b).unwrap();
    }

    fn known(vmaf: &mut Vmaf) -> Vec<Option<f64>> {
        std::iter::from_fn(|| vmaf.next()).collect()
    }

    #[test]
    fn what_is_no_library_says_what_to_do() {
        let find = |path: &std::path::Path| Functions::find(Some(path.as_os_str())).unwrap_err();
        let path = std::env::temp_dir().join(format!("nnv-no-libvmaf-{}", std::process::id()));
        let error = find(&path).to_string();
        assert!(
            error.contains("NNV_VMAF_LIBRARY") && error.contains("is no file"),
            "{error}"
        );
        std::fs::write(&path, b"not a library").unwrap();
        let error = find(&path).to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("NNV_VMAF_LIBRARY"), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        // A sound one that is another.
        #[cfg(target_os = "linux")]
        {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let mut paths = maps
                .lines()
                .filter_map(|line| line.split_whitespace().nth(5));
            let libc = paths.find(|path| path.contains("libc.so") || path.contains("libc-"));
            let error = find(std::path::Path::new(libc.unwrap())).to_string();
            assert!(error.contains("no function vmaf_version"), "{error}");
        }
    }

    #[test]
    fn a_model_that_is_not_there_is_an_error() {
        if vmaf(Vmaf::DEFAULT_MODEL).is_none() {
            return;
        }
        for model in ["vmaf_v9", "", "a\0b"] {
            let error = Vmaf::new(model).unwrap_err();
            assert!(matches!(error, VmafError::Model { .. }), "{error}");
            assert!(error.to_string().contains(Vmaf::DEFAULT_MODEL), "{error}");
        }
        let newest = Vmaf::new(Vmaf::NEWEST_MODEL).unwrap();
        assert!(Vmaf::NEWEST.contains(&newest.model()));
    }

    /// Contexts that follow one another give what a single one gives.
    #[test]
    fn chunks_do_not_show() {
        for (model, size) in [
            (Vmaf::DEFAULT_MODEL, (64, 45)),
            ("vmaf_v1.0.16_hfr_3d0h", (216, 216)),
        ] {
            let Ok(mut chunked) = Vmaf::new(model) else {
                eprintln!("NOT RUN: {:?}", Vmaf::new(model));
                continue;
            };
            let mut single = chunked.model.context(1).unwrap();
            let frames = 2 * CHUNK + 7;
            for t in 0..frames {
                feed(size, (true, true), 8, t, &mut chunked);
                let pair = [false, true].map(|coarse| picture(size, (true, true), 8, t, coarse));
                let [a, b] = pair.each_ref().map(|planes| views(planes, 8));
                single.add(Format::of(&a).unwrap(), &a, &b).unwrap();
                // However many frames come, few contexts are open.
                let run = chunked.run.as_ref().unwrap();
                assert!(run.fed - run.now.first <= CHUNK + LEAD);
            }
            chunked.finish().unwrap();
            single.flush().unwrap();
            let scores = known(&mut chunked);
            assert_eq!(scores.len() as u64, frames);
            for (t, score) in scores.into_iter().enumerate() {
                assert_eq!(score, single.score(t as u32).ok(), "{model}, frame {t}");
            }
        }
    }

    #[test]
    fn scores_are_of_their_frames_and_none_is_lost() {
        let Some(vmaf) = vmaf(Vmaf::DEFAULT_MODEL) else {
            return;
        };
        let mut meter = Meter::new(Metrics::default(), 25, Colour::default()).with_vmaf(vmaf);
        let mut frames = Vec::new();
        for t in 0..130 {
            let pair = [false, true].map(|coarse| picture((64, 48), (true, true), 8, t, coarse));
            let [a, b] = pair.each_ref().map(|planes| views(planes, 8));
            frames.push(meter.add(&a, &b).unwrap());
        }
        let mut complete = 0;
        while frames[complete..]
            .iter_mut()
            .next()
            .is_some_and(|f| meter.complete(f))
        {
            complete += 1;
        }
        assert!((119..130).contains(&complete), "{complete}");
        assert_eq!(frames[complete].vmaf, None);
        meter.finish().unwrap();
        assert!(frames[complete..].iter_mut().all(|f| meter.complete(f)));
        let scores: Vec<f64> = frames.iter().map(|f| f.vmaf.unwrap()).collect();
        // Odd ones are coarser. The first has no motion, which costs it.
        for pair in scores.chunks(2).skip(1) {
            assert!(pair[0] > pair[1] + 5.0, "{pair:?}");
        }
        let mean = scores.iter().sum::<f64>() / 130.0;
        assert!((meter.mean().unwrap().vmaf.unwrap() - mean).abs() < 1e-9);
    }

    /// A frame by itself has the score that it has in its video: the first, inner ones, the last.
    #[test]
    fn single_frames_are_as_in_their_video() {
        let Some(mut vmaf) = vmaf(Vmaf::DEFAULT_MODEL) else {
            return;
        };
        for (size, depth) in [((64, 45), 8), ((80, 64), 10)] {
            let frames: Vec<[Planes; 2]> = (0..6)
                .map(|t| [false, true].map(|coarse| picture(size, (true, true), depth, t, coarse)))
                .collect();
            let views: Vec<[[PlaneView<'_>; 3]; 2]> = frames
                .iter()
                .map(|pair| pair.each_ref().map(|planes| views(planes, depth)))
                .collect();
            for [a, b] in &views {
                vmaf.add(a, b).unwrap();
            }
            vmaf.finish().unwrap();
            let in_video = known(&mut vmaf);
            let at = |t: Option<usize>| t.and_then(|t| views.get(t)).map(|[a, _]| a);
            for (t, [a, b]) in views.iter().enumerate() {
                let alone = vmaf
                    .model
                    .frame(at(t.checked_sub(1)), a, b, at(Some(t + 1)));
                assert_eq!(alone.unwrap(), in_video[t], "{depth} bits, frame {t}");
            }
            // Motion is what the neighbours are for.
            let [a, b] = &views[2];
            assert_ne!(vmaf.model.frame(None, a, b, None).unwrap(), in_video[2]);
        }
        let small = picture((32, 48), (true, true), 8, 0, false);
        let small = self::views(&small, 8);
        assert_eq!(vmaf.model.frame(None, &small, &small, None).unwrap(), None);
    }

    #[test]
    fn another_format_begins_anew() {
        let Some(mut both) = vmaf(Vmaf::DEFAULT_MODEL) else {
            return;
        };
        let mut alone = vmaf(Vmaf::DEFAULT_MODEL).unwrap();
        for t in 0..5 {
            feed((64, 48), (true, true), 8, t, &mut both);
        }
        for t in 0..5 {
            feed((80, 64), (true, true), 10, t, &mut both);
            feed((80, 64), (true, true), 10, t, &mut alone);
        }
        both.finish().unwrap();
        alone.finish().unwrap();
        let both = known(&mut both);
        assert_eq!(both.len(), 10);
        assert_eq!(both[5..], known(&mut alone)[..]);
    }

    /// The default model looks at luma alone; samples above the depth's greatest are that.
    #[test]
    fn formats_depths_and_sizes() {
        let Some(mut vmaf) = vmaf(Vmaf::DEFAULT_MODEL) else {
            return;
        };
        let mut scores = |halves, depth| {
            for t in 0..3 {
                feed((64, 45), halves, depth, t, &mut vmaf);
            }
            vmaf.finish().unwrap();
            known(&mut vmaf)
        };
        let eight = scores((true, true), 8);
        assert_eq!(scores((true, false), 8), eight);
        assert_eq!(scores((false, false), 8), eight);
        let ten = scores((true, true), 10);
        for (a, b) in eight.iter().zip(ten) {
            assert!((a.unwrap() - b.unwrap()).abs() < 0.5, "{a:?} {b:?}");
        }
        assert_eq!(scores((false, false), 16).len(), 3);
        let mut of = |value: u16| {
            let planes: Planes = std::array::from_fn(|_| (vec![value; 40 * 40], 40, 40));
            let view = views(&planes, 10);
            vmaf.add(&view, &view).unwrap();
            vmaf.finish().unwrap();
            known(&mut vmaf)
        };
        assert_eq!(of(u16::MAX), of(1023));
        feed((32, 48), (true, true), 8, 0, &mut vmaf);
        assert_eq!(vmaf.next(), Some(None));
        let planes = picture((64, 48), (true, true), 8, 0, false);
        let [y, u, _] = views(&planes, 8);
        let error = vmaf.add(&[y, u, y], &[y, u, y]).unwrap_err();
        assert!(matches!(error, VmafError::Pictures { .. }), "{error}");
        assert!(QualityError::from(error).to_string().contains("4:2:2"));
    }
}
