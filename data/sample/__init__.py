"""The embedded sample: drawn images, two networks pretrained on drawings, and the code that makes both."""
