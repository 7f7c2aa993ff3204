"""What a process of the tests needs, imported once."""

import distilface_st.model
import distilface_st.sweep
import distilface_st.training  # noqa: F401
