//! Metadata of a GGUF file: values of a few types, and flat arrays of them.

/// A metadata value, in the type that the file gives it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the format")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the format")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Type id of an array.
pub const ARRAY: u32 = 9;

impl Value {
    /// The format's type id.
    pub fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => ARRAY,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// How the type is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::F32(_) | Value::F64(_) => "a fraction",
            Value::Bool(_) => "a truth value",
            Value::String(_) => "a text",
            Value::Array(_) => "an array",
            _ => "a whole number",
        }
    }

    /// A whole number from 0 on, of whichever width the writer chose.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U8(v) => Some((*v).into()),
            Value::U16(v) => Some((*v).into()),
            Value::U32(v) => Some((*v).into()),
            Value::U64(v) => Some(*v),
            Value::I8(v) => u64::try_from(*v).ok(),
            Value::I16(v) => u64::try_from(*v).ok(),
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// A number, whole or not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F32(v) => Some((*v).into()),
            Value::F64(v) => Some(*v),
            _ => self.as_u64().map(|v| v as f64),
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }
}

impl Array {
    /// The format's type id of an element.
    pub fn element_id(&self) -> u32 {
        match self {
            Array::U8(_) => 0,
            Array::I8(_) => 1,
            Array::U16(_) => 2,
            Array::I16(_) => 3,
            Array::U32(_) => 4,
            Array::I32(_) => 5,
            Array::F32(_) => 6,
            Array::Bool(_) => 7,
            Array::String(_) => 8,
            Array::U64(_) => 10,
            Array::I64(_) => 11,
            Array::F64(_) => 12,
        }
    }

    /// Whole numbers from 0 on; `None` where an element is something else.
    pub fn as_u64s(&self) -> Option<Vec<u64>> {
        match self {
            Array::U8(v) => Some(v.iter().map(|x| (*x).into()).collect()),
            Array::U16(v) => Some(v.iter().map(|x| (*x).into()).collect()),
            Array::U32(v) => Some(v.iter().map(|x| (*x).into()).collect()),
            Array::U64(v) => Some(v.clone()),
            Array::I8(v) => v.iter().map(|x| u64::try_from(*x).ok()).collect(),
            Array::I16(v) => v.iter().map(|x| u64::try_from(*x).ok()).collect(),
            Array::I32(v) => v.iter().map(|x| u64::try_from(*x).ok()).collect(),
            Array::I64(v) => v.iter().map(|x| u64::try_from(*x).ok()).collect(),
            Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
