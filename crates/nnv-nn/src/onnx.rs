// SPDX-License-Identifier: MPL-2.0
//! What a graph may hold, judged before a back end sees it.
//!
//! A bundle may come from anywhere. A network of this project is a plain list of standard operators
//! with all its numbers inside the file. So a graph that would read other files, that has graphs
//! within (loops and branches, which need not end) or operators of its own is refused. Only as much
//! of the format (protocol buffers, `onnx.proto`) is read as that takes; back ends that read graphs
//! themselves go on from [`Message`].

/// Most nodes and most tensors of a graph; those of this project have at most 400.
const MAX_PARTS: usize = 20_000;
/// Operators that run a graph of their own, or one that is named elsewhere.
const WITH_GRAPHS: [&str; 4] = ["Loop", "Scan", "If", "SequenceMap"];

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer, as its bits.
    Number(u64),
    /// A string, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Four or eight bytes that no back end of this project needs.
    Fixed,
}

/// The bytes of a message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a>(pub &'a [u8]);

impl<'a> Message<'a> {
    /// An integer without a field around it, as in packed lists.
    ///
    /// # Errors
    /// A sentence where there is none.
    pub fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for i in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or_else(cut)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("it is no ONNX file (a number is too long)".into())
    }

    fn bytes(&mut self, len: u64) -> Result<&'a [u8], String> {
        let len = usize::try_from(len).map_err(|_| cut())?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(cut)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Number and value of the next field; `None` after the last.
    ///
    /// # Errors
    /// A sentence where the bytes are no message.
    pub fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.bytes(len)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            other => return Err(format!("it is no ONNX file (a field of type {other})")),
        };
        Ok(Some((tag >> 3, value)))
    }
}

fn cut() -> String {
    "it is cut off or no ONNX file".into()
}

/// Checks the bytes of a model.
///
/// # Errors
/// A sentence on what it must not hold.
pub(super) fn check(model: &[u8]) -> Result<(), String> {
    let mut message = Message(model);
    let mut graphs = 0;
    while let Some(field) = message.field()? {
        match field {
            (7, Value::Bytes(bytes)) => {
                graphs += 1;
                graph(bytes)?;
            }
            (8, Value::Bytes(bytes)) => {
                let mut opset = Message(bytes);
                while let Some(field) = opset.field()? {
                    if let (1, Value::Bytes(name)) = field {
                        domain("imports operators", name)?;
                    }
                }
            }
            (20, _) => return Err("it holds graphs for training".into()),
            (25, _) => return Err("it defines functions, which may hold anything".into()),
            _ => {}
        }
    }
    match graphs {
        1 => Ok(()),
        n => Err(format!("it holds {n} graphs, it must hold one")),
    }
}

fn domain(what: &str, name: &[u8]) -> Result<(), String> {
    match name {
        b"" | b"ai.onnx" => Ok(()),
        other => Err(format!(
            "it {what} of \"{}\", only those of standard ONNX are allowed",
            text(other)
        )),
    }
}

fn graph(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    let mut parts = 0;
    while let Some((number, value)) = message.field()? {
        let Value::Bytes(bytes) = value else { continue };
        match number {
            1 => node(bytes)?,
            5 => tensor(bytes)?,
            15 => sparse_tensor(bytes)?,
            _ => continue,
        }
        parts += 1;
        if parts > MAX_PARTS {
            return Err(format!("it has more than {MAX_PARTS} nodes and tensors"));
        }
    }
    Ok(())
}

fn node(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    while let Some((number, value)) = message.field()? {
        let Value::Bytes(bytes) = value else { continue };
        match number {
            4 if WITH_GRAPHS.iter().any(|name| name.as_bytes() == bytes) => {
                return Err(with_graph(&text(bytes)));
            }
            5 => attribute(bytes)?,
            7 => domain("has operators", bytes)?,
            _ => {}
        }
    }
    Ok(())
}

fn with_graph(operator: &str) -> String {
    format!("it has the operator {operator}, which runs a graph within: it might never end")
}

fn attribute(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    while let Some((number, value)) = message.field()? {
        let Value::Bytes(bytes) = value else { continue };
        match number {
            5 | 10 => tensor(bytes)?,
            6 | 11 => {
                return Err("an operator of it runs a graph within: it might never end".into());
            }
            22 | 23 => sparse_tensor(bytes)?,
            _ => {}
        }
    }
    Ok(())
}

fn sparse_tensor(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    while let Some((number, value)) = message.field()? {
        if let (1 | 2, Value::Bytes(bytes)) = (number, value) {
            tensor(bytes)?;
        }
    }
    Ok(())
}

fn tensor(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    let (mut name, mut elsewhere) = (String::new(), false);
    while let Some(field) = message.field()? {
        match field {
            (8, Value::Bytes(bytes)) => name = text(bytes),
            (13, _) => elsewhere = true,
            (14, Value::Number(location)) => elsewhere |= location != 0,
            _ => {}
        }
    }
    if elsewhere {
        return Err(format!(
            "its tensor \"{name}\" is kept in another file; export it with all data inside"
        ));
    }
    Ok(())
}

/// A name from the file, for messages.
fn text(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(64)];
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value > 127 {
            out.push(value as u8 | 128);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    /// A field that holds bytes or a message.
    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        [
            varint(number << 3 | 2),
            varint(bytes.len() as u64),
            bytes.to_vec(),
        ]
        .concat()
    }

    fn model(parts: &[Vec<u8>]) -> Vec<u8> {
        field(7, &parts.concat())
    }

    fn operator(name: &str, more: &[u8]) -> Vec<u8> {
        field(1, &[field(4, name.as_bytes()), more.to_vec()].concat())
    }

    #[test]
    fn what_ships_is_allowed() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let mut count = 0;
        for kind in ["", "sr"] {
            for bundle in std::fs::read_dir(models.join(kind)).unwrap().flatten() {
                for file in std::fs::read_dir(bundle.path())
                    .into_iter()
                    .flatten()
                    .flatten()
                {
                    if file.path().extension().is_some_and(|e| e == "onnx") {
                        let bytes = std::fs::read(file.path()).unwrap();
                        assert_eq!(check(&bytes), Ok(()), "{:?}", file.path());
                        // Cut anywhere, it is an error or a smaller graph.
                        for cut in [1, bytes.len() / 2, bytes.len() - 1] {
                            let _ = check(&bytes[..cut]);
                        }
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 10, "{count} graphs");
    }

    #[test]
    fn graphs_that_reach_outside_or_need_not_end_are_refused() {
        let external = [field(8, b"weights"), vec![14 << 3, 1]].concat();
        let location = [field(8, b"weights"), field(13, b"")].concat();
        let nested = field(5, &field(6, b""));
        let nested_list = field(5, &field(11, b""));
        let constant = field(5, &field(5, &external));
        let sparse = field(15, &field(1, &external));
        for (parts, word) in [
            (vec![field(5, &external)], "weights"),
            (vec![field(5, &location)], "weights"),
            (vec![operator("Constant", &constant)], "weights"),
            (vec![sparse], "weights"),
            (vec![operator("Loop", b"")], "Loop"),
            (vec![operator("If", b"")], "If"),
            (vec![operator("Scan", b"")], "Scan"),
            (vec![operator("Mystery", &nested)], "graph within"),
            (vec![operator("Mystery", &nested_list)], "graph within"),
            (vec![operator("Relu", &field(7, b"evil.org"))], "evil.org"),
            (vec![operator("Relu", b""); MAX_PARTS + 1], "more than"),
        ] {
            let error = check(&model(&parts)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let sound = model(&[operator("Relu", &field(7, b"ai.onnx"))]);
        assert_eq!(check(&sound), Ok(()));
        for (more, word) in [
            (field(25, b""), "functions"),
            (field(20, b""), "training"),
            (field(8, &field(1, b"com.evil")), "com.evil"),
            (sound.clone(), "2 graphs"),
        ] {
            let error = check(&[sound.clone(), more].concat()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(check(b"").unwrap_err().contains("0 graphs"));
        assert!(check(b"not a model").is_err());
        assert!(check(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
    }
}
