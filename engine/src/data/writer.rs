//! Writer: a serializer to JSON that refuses what does not read back, notes where references stand, and is bounded.
//!
//! `serde_json`'s own writes null for a number that is not finite, keeps one of two equal keys, and goes as deep and as
//! far as it is led.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};

use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::{Map, Number, Value};

use super::limits::{DEPTH_MAX, VALUE_MAX};
use super::reference::collecting;
use super::{Input, Reference, Token, Unstorable};

/// Calls of a type's `Serialize` in one another that open no list or map: a chain of boxes is as deep as it is long.
const CALLS_MAX: usize = 4 * DEPTH_MAX;
/// Types of `serde_json` itself whose one field is JSON text.
const RAW: &str = "$serde_json::private::";

/// A value as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) value: Value,
    /// It is the `None` of an `Option`, rather than a null that is something.
    pub(crate) is_none: bool,
}

/// Writes a value; each [`Made`](crate::Made) in it is its value.
pub(super) fn write<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Written, Unstorable> {
    let context = Context::default();
    let value = Token::inside(|| value.serialize(context.root())).map_err(|error| error.of(what))?;
    Ok(Written { value, is_none: context.is_none.get() })
}

/// Writes an input; each [`Made`](crate::Made) in it is null, and a reference beside it.
pub(super) fn write_input<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Input, Unstorable> {
    let context = Context { follows: true, ..Context::default() };
    let (value, steps) = collecting(|| value.serialize(context.root()));
    let value = value.map_err(|error| error.of(what))?;
    let mut references = Vec::with_capacity(steps.len());
    let mut seen = context.seen.into_inner();
    seen.sort();
    for (place, (number, at)) in seen.into_iter().enumerate() {
        if number == place
            && let Some(step) = steps.get(number)
        {
            references.push(Reference { at, step: step.clone() });
        }
    }
    if references.len() != steps.len() {
        let problem =
            "holds what another step made where that cannot be followed (inside a text, or written twice)";
        return Err(Unstorable::new(what, problem));
    }
    Ok(Input { value, references })
}

/// A value that nobody compares, as JSON.
pub(crate) fn written<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Value, Unstorable> {
    write(what, value).map(|written| written.value)
}

/// Refuses a value that is too large or too deep.
pub(crate) fn check(what: &str, value: &Value) -> Result<(), Unstorable> {
    write(what, value).map(drop)
}

#[derive(Default)]
struct Context {
    follows: bool,
    length: Cell<usize>,
    is_none: Cell<bool>,
    /// The numbers of references, and where they stand.
    seen: RefCell<Vec<(usize, String)>>,
}

impl Context {
    fn root(&self) -> Writer<'_> {
        Writer { context: self, path: &Path::Root, depth: 0, calls: 0 }
    }
}

/// Where something stands.
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(outer, key) => write!(f, "{outer}/{}", key.replace('~', "~0").replace('/', "~1")),
            Self::Item(outer, place) => write!(f, "{outer}/{place}"),
        }
    }
}

/// What is wrong, and where.
#[derive(Debug)]
struct Problem(String);

impl Problem {
    fn of(self, what: &str) -> Unstorable {
        Unstorable::new(what, self.0)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl ser::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(format!("cannot be written as JSON: {message}"))
    }
}

/// Counts what is written to it.
struct Count(usize);

impl fmt::Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Writer<'w> {
    context: &'w Context,
    path: &'w Path<'w>,
    depth: usize,
    calls: usize,
}

impl<'w> Writer<'w> {
    fn at(&self) -> String {
        let at = self.path.to_string();
        if at.is_empty() {
            String::new()
        } else {
            format!(", at {}", at.chars().take(200).collect::<String>())
        }
    }

    fn add(&self, length: usize) -> Result<(), Problem> {
        let length = self.context.length.get().saturating_add(length);
        self.context.length.set(length);
        if length > VALUE_MAX {
            return Err(Problem(format!("is too long: more than {VALUE_MAX} bytes as JSON{}", self.at())));
        }
        Ok(())
    }

    fn add_text(&self, text: &str) -> Result<(), Problem> {
        let escapes = text.bytes().map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 1,
            0..0x20 => 5,
            _ => 0,
        });
        self.add(text.len() + 2 + escapes.sum::<usize>())
    }

    fn text(&self, text: &str) -> Result<Value, Problem> {
        self.add_text(text)?;
        Ok(Value::String(text.to_owned()))
    }

    fn number(&self, number: Number) -> Result<Value, Problem> {
        let mut count = Count(0);
        // Counting cannot fail.
        let _ = write!(count, "{number}");
        self.add(count.0)?;
        Ok(Value::Number(number))
    }

    fn float(&self, number: f64, written: Option<Number>) -> Result<Value, Problem> {
        match written.filter(|_| number.is_finite()) {
            Some(written) => self.number(written),
            None => Err(Problem(format!("has a number that is not finite ({number}){}", self.at()))),
        }
    }

    fn wide(&self, text: &str, narrow: Option<Number>) -> Result<Value, Problem> {
        match narrow {
            Some(narrow) => self.number(narrow),
            None => Err(Problem(format!("has a number that takes more than 64 bits ({text}){}", self.at()))),
        }
    }

    /// The same place, a call further in.
    fn called(self) -> Result<Self, Problem> {
        let calls = self.calls + 1;
        if calls > CALLS_MAX {
            return Err(Problem(format!(
                "is too deep: more than {CALLS_MAX} values in one another{}",
                self.at()
            )));
        }
        Ok(Self { calls, ..self })
    }

    /// A list or map here.
    fn opened(self) -> Result<Self, Problem> {
        self.add(2)?;
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(Problem(format!(
                "is too deep: more than {DEPTH_MAX} lists and maps in one another{}",
                self.at()
            )));
        }
        Self { depth, ..self }.called()
    }

    fn variant(self, variant: &'static str) -> Result<Inside<'w>, Problem> {
        let outer = self.opened()?;
        outer.add_text(variant)?;
        outer.add(1)?;
        Ok(Inside { writer: outer.opened()?, variant: Some(variant), ..Inside::new(outer) })
    }
}

/// A list or map that is being written.
struct Inside<'w> {
    writer: Writer<'w>,
    /// It stands under this name in a map of its own.
    variant: Option<&'static str>,
    items: Vec<Value>,
    map: Map<String, Value>,
    key: Option<String>,
    is_raw: bool,
}

impl<'w> Inside<'w> {
    fn new(writer: Writer<'w>) -> Self {
        Self { writer, variant: None, items: Vec::new(), map: Map::new(), key: None, is_raw: false }
    }

    fn write<T: Serialize + ?Sized>(&self, place: Result<&str, usize>, value: &T) -> Result<Value, Problem> {
        let outer = self.variant.map(|variant| Path::Key(self.writer.path, variant));
        let outer = outer.as_ref().unwrap_or(self.writer.path);
        let path = match place {
            Ok(key) => Path::Key(outer, key),
            Err(place) => Path::Item(outer, place),
        };
        self.writer.add(1)?;
        let Writer { context, depth, calls, .. } = self.writer;
        value.serialize(Writer { context, path: &path, depth, calls })
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let value = self.write(Err(self.items.len()), value)?;
        self.items.push(value);
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), Problem> {
        self.writer.add_text(&key)?;
        self.writer.add(1)?;
        let value = self.write(Ok(&key), value)?;
        if self.map.contains_key(&key) {
            return Err(Problem(format!("has the key {key:?} twice{}", self.writer.at())));
        }
        self.map.insert(key, value);
        Ok(())
    }

    fn named(self, value: Value) -> Value {
        match self.variant {
            Some(variant) => Value::Object(Map::from_iter([(variant.to_owned(), value)])),
            None => value,
        }
    }

    fn end_list(mut self) -> Value {
        let items = Value::Array(std::mem::take(&mut self.items));
        self.named(items)
    }

    fn end_map(mut self) -> Value {
        let map = Value::Object(std::mem::take(&mut self.map));
        self.named(map)
    }
}

impl<'w> Serializer for Writer<'w> {
    type Ok = Value;
    type Error = Problem;
    type SerializeSeq = Inside<'w>;
    type SerializeTuple = Inside<'w>;
    type SerializeTupleStruct = Inside<'w>;
    type SerializeTupleVariant = Inside<'w>;
    type SerializeMap = Inside<'w>;
    type SerializeStruct = Inside<'w>;
    type SerializeStructVariant = Inside<'w>;

    fn serialize_bool(self, value: bool) -> Result<Value, Problem> {
        self.add(5)?;
        Ok(Value::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_i128(self, value: i128) -> Result<Value, Problem> {
        let narrow =
            u64::try_from(value).map(Number::from).or_else(|_| i64::try_from(value).map(Number::from));
        self.wide(&value.to_string(), narrow.ok())
    }

    fn serialize_u8(self, value: u8) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<Value, Problem> {
        self.number(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<Value, Problem> {
        self.wide(&value.to_string(), u64::try_from(value).map(Number::from).ok())
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Problem> {
        self.float(value.into(), Number::from_f64(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Problem> {
        self.float(value, Number::from_f64(value))
    }

    fn serialize_char(self, value: char) -> Result<Value, Problem> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Value, Problem> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<Value, Problem> {
        if self.calls == 0 {
            self.context.is_none.set(true);
        }
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        value.serialize(self.called()?)
    }

    fn serialize_unit(self) -> Result<Value, Problem> {
        self.add(4)?;
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Problem> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, Problem> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        let written = value.serialize(self.called()?)?;
        if !(self.context.follows && name == Token::NAME) {
            return Ok(written);
        }
        let number = written.as_u64().and_then(|number| usize::try_from(number).ok());
        let number = number.ok_or_else(|| Problem("holds a reference that has no number".to_owned()))?;
        self.context.seen.borrow_mut().push((number, self.path.to_string()));
        Ok(Value::Null)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        let mut map = Inside::new(self.opened()?);
        map.field(variant.to_owned(), value)?;
        Ok(map.end_map())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inside<'w>, Problem> {
        self.opened().map(Inside::new)
    }

    fn serialize_tuple(self, _: usize) -> Result<Inside<'w>, Problem> {
        self.opened().map(Inside::new)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Inside<'w>, Problem> {
        self.opened().map(Inside::new)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'w>, Problem> {
        self.variant(variant)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inside<'w>, Problem> {
        self.opened().map(Inside::new)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Inside<'w>, Problem> {
        if name.starts_with(RAW) {
            return Ok(Inside { is_raw: true, ..Inside::new(self.called()?) });
        }
        self.opened().map(Inside::new)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'w>, Problem> {
        self.variant(variant)
    }
}

impl SerializeSeq for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.item(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_list())
    }
}

impl SerializeTuple for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.item(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_list())
    }
}

impl SerializeTupleStruct for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.item(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_list())
    }
}

impl SerializeTupleVariant for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.item(value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_list())
    }
}

impl SerializeMap for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        self.key = Some(key_of(key, &self.writer)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let key = self.key.take().ok_or_else(|| Problem("has a value in a map before its key".to_owned()))?;
        self.field(key, value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_map())
    }
}

impl SerializeStruct for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        if self.is_raw {
            let text = self.raw_text(value)?;
            let value: Value = serde_json::from_str(&text).map_err(ser::Error::custom)?;
            let written = value.serialize(self.writer)?;
            self.items.push(written);
            return Ok(());
        }
        self.field(key.to_owned(), value)
    }

    fn end(mut self) -> Result<Value, Problem> {
        if self.is_raw {
            return Ok(self.items.pop().unwrap_or_default());
        }
        Ok(self.end_map())
    }
}

impl SerializeStructVariant for Inside<'_> {
    type Ok = Value;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        self.field(key.to_owned(), value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.end_map())
    }
}

impl Inside<'_> {
    /// The JSON text that a type of `serde_json`'s own hands over.
    fn raw_text<T: Serialize + ?Sized>(&self, value: &T) -> Result<String, Problem> {
        match value.serialize(self.writer)? {
            Value::String(text) => Ok(text),
            _ => Err(Problem("has JSON text that is no text".to_owned())),
        }
    }
}

/// A key as text: what is no text is one as `serde_json` writes and reads it.
fn key_of<T: Serialize + ?Sized>(key: &T, writer: &Writer<'_>) -> Result<String, Problem> {
    let context = Context::default();
    let problem =
        || Problem(format!("has a map with a key that is neither text nor a number{}", writer.at()));
    match key.serialize(context.root()).map_err(|error| Problem(format!("{error}{}", writer.at())))? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(yes) => Ok(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(problem()),
    }
}
