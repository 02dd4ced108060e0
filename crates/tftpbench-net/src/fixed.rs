//! An array that never moves and is reached by raw pointer, for what the kernel is handed pointers to.
//!
//! A `Box` or `Vec` promises the compiler that no other pointer leads into it; message headers do.
//! Only the batches use it.

use std::ptr::NonNull;

/// `len` elements at a fixed address until dropped. Elements are plain data without a destructor.
pub(crate) struct Fixed<T: Copy> {
    elements: NonNull<[T]>,
}

impl<T: Copy> Fixed<T> {
    /// Memory for `len` elements, made by `make`.
    pub(crate) fn new(len: usize, make: impl FnMut(usize) -> T) -> Self {
        Fixed::adopt((0..len).map(make).collect())
    }

    /// Takes over a box without touching its contents.
    pub(crate) fn adopt(elements: Box<[T]>) -> Self {
        Fixed { elements: NonNull::from(Box::leak(elements)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Pointer to element `index`, valid as long as this array. `index` may be `len`: one past the end.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len());
        // SAFETY: in bounds, or one past the end, of one allocation by the assertion.
        unsafe { self.elements.as_ptr().cast::<T>().add(index) }
    }
}

impl<T: Copy> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from Box::leak, and only this drop gives it back.
        drop(unsafe { Box::from_raw(self.elements.as_ptr()) });
    }
}
