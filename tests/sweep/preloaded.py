"""What a process of the tests needs, imported once."""

import distilface_st.models.save
import distilface_st.sweep
import distilface_st.training.train  # noqa: F401
