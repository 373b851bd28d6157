"""Base pages only, whatever this machine does by default: a huge page is one fault for hundreds of pages."""

from __future__ import annotations

import ctypes

PR_SET_THP_DISABLE = 41

ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
